/* Start of every program: finds argc, argv and the environment on the stack and calls main. */
#include "exuvia.h"

char **environ;
int errno;

int main(int argc, char **argv, char **envp);

__attribute__((used, noreturn)) void start_c(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    environ = argv + argc + 1;
    exit(main(argc, argv, environ));
}

__asm__(".globl _start\n"
        "_start:\n"
        "  xorl %ebp, %ebp\n"
        "  movq %rsp, %rdi\n"
        "  andq $-16, %rsp\n"
        "  call start_c\n");
