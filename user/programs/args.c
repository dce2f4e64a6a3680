/* Arguments, environment, process id. */
#include "exuvia.h"

int main(int argc, char **argv, char **envp) {
    printf("pid %d, %d arguments\n", getpid(), argc);
    for (int i = 0; i < argc; i++) printf("  argv[%d] = \"%s\"\n", i, argv[i]);
    for (int i = 0; envp[i]; i++) printf("  envp[%d] = \"%s\"\n", i, envp[i]);
    return argc > 1 ? (int)strtol(argv[1], NULL, 0) : 0;
}
