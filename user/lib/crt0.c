/* Start of every program: finds argc, argv, the environment and the auxiliary vector on the stack and calls main. */
#include <err.h>
#include <stdlib.h>
#include "libc.h"

char **environ;

int main(int argc, char **argv, char **envp);

__attribute__((used, noreturn)) void __start_c(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    environ = argv + argc + 1;
    char **end = environ;
    while (*end) end++;
    __start_auxv((unsigned long *)(end + 1));
    __start_tls();
    if (argc > 0) setprogname(argv[0]);
    exit(main(argc, argv, environ));
}

__asm__(".globl _start\n"
        "_start:\n"
        "  xorl %ebp, %ebp\n"
        "  movq %rsp, %rdi\n"
        "  andq $-16, %rsp\n"
        "  call __start_c\n");
