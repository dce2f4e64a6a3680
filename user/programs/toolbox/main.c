/* Runs the command whose name the program was called by, or that its first argument names. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "toolbox.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} TABLE[] = {
#define ROW(name) {#name, name##_main},
    COMMANDS(ROW)
#undef ROW
};

int main(int argc, char **argv) {
    for (int shifted = 0; shifted < 2 && argc > 0; shifted++, argc--, argv++) {
        const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
        setprogname(name);
        for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
            if (strcmp(TABLE[i].name, name) == 0) {
                int status = TABLE[i].run(argc, argv);
                if (fflush(stdout) < 0 || ferror(stdout)) err(1, "standard output");
                return status;
            }
        if (!shifted && argc > 1 && strcmp(argv[1], "--list") == 0) {
            for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) puts(TABLE[i].name);
            return 0;
        }
    }
    fputs("usage: toolbox COMMAND [ARGUMENT ...] | toolbox --list\n", stderr);
    return 2;
}
