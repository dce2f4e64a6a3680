/* setjmp and longjmp. */
#include <setjmp.h>
#include <signal.h>

__asm__(".text\n.globl _setjmp\n"
        "_setjmp:\n"
        "  movq %rbx, (%rdi)\n"
        "  leaq 8(%rsp), %rdx\n"
        "  movq %rdx, 8(%rdi)\n"
        "  movq %rbp, 16(%rdi)\n"
        "  movq %r12, 24(%rdi)\n"
        "  movq %r13, 32(%rdi)\n"
        "  movq %r14, 40(%rdi)\n"
        "  movq %r15, 48(%rdi)\n"
        "  movq (%rsp), %rdx\n"
        "  movq %rdx, 56(%rdi)\n"
        "  xorl %eax, %eax\n"
        "  ret\n"
        ".globl _longjmp\n"
        "_longjmp:\n"
        "  movl %esi, %eax\n"
        "  testl %eax, %eax\n"
        "  jnz 1f\n"
        "  incl %eax\n"
        "1: movq (%rdi), %rbx\n"
        "  movq 8(%rdi), %rsp\n"
        "  movq 16(%rdi), %rbp\n"
        "  movq 24(%rdi), %r12\n"
        "  movq 32(%rdi), %r13\n"
        "  movq 40(%rdi), %r14\n"
        "  movq 48(%rdi), %r15\n"
        "  jmp *56(%rdi)\n");

void __save_mask(struct __jmp_buf *buffer, int save) {
    buffer->mask_saved = save;
    if (save) sigprocmask(SIG_BLOCK, NULL, (sigset_t *)buffer->mask);
}

void siglongjmp(struct __jmp_buf *buffer, int value) {
    if (buffer->mask_saved) sigprocmask(SIG_SETMASK, (sigset_t *)buffer->mask, NULL);
    _longjmp(buffer, value);
}
