/* Jumps out of functions: RBX RSP RBP R12-R15 RIP, and the signal mask for sigsetjmp. */
#ifndef _SETJMP_H
#define _SETJMP_H

typedef struct __jmp_buf {
    long registers[8];
    int mask_saved;
    unsigned mask[4];
} jmp_buf[1];
typedef jmp_buf sigjmp_buf;

int _setjmp(struct __jmp_buf *buffer) __attribute__((returns_twice));
void _longjmp(struct __jmp_buf *buffer, int value) __attribute__((noreturn));
void __save_mask(struct __jmp_buf *buffer, int save);
void siglongjmp(struct __jmp_buf *buffer, int value) __attribute__((noreturn));

#define setjmp(buffer) _setjmp(buffer)
#define longjmp(buffer, value) _longjmp(buffer, value)
#define sigsetjmp(buffer, save) (__save_mask(buffer, save), _setjmp(buffer))

#endif
