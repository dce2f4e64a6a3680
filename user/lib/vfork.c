/* vfork(). */
#include "libc.h"

/* The child runs on this very stack until it execs: the return address must not be there to be overwritten. */
__asm__(".text\n.globl vfork\n"
        "vfork:\n"
        "  popq %rsi\n"
        "  movl $66, %eax\n"
        "  syscall\n"
        "  pushq %rsi\n"
        "  jc 1f\n"
        "  ret\n"
        "1: movl %eax, %edi\n"
        "  jmp __vfork_failed\n");

__attribute__((used)) int __vfork_failed(int error) {
    errno = error;
    return -1;
}
