/* System calls: SYSCALL with the number in RAX; the carry flag says that RAX is an error number. */
#include "libc.h"

long syscall6(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result = number;
    char failed;
    __asm__ volatile("syscall\n\tsetc %1"
                     : "+a"(result), "=q"(failed), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9)
                     : "D"(a), "S"(b)
                     : "rcx", "r11", "memory", "cc");
    if (failed) {
        errno = (int)result;
        return -1;
    }
    return result;
}

long syscall7(long number, long a, long b, long c, long d, long e, long f, long g) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result = number;
    char failed;
    __asm__ volatile("pushq %[g]\n\tsubq $8, %%rsp\n\tsyscall\n\tsetc %1\n\tleaq 16(%%rsp), %%rsp"
                     : "+a"(result), "=q"(failed), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9)
                     : "D"(a), "S"(b), [g] "r"(g)
                     : "rcx", "r11", "memory", "cc");
    if (failed) {
        errno = (int)result;
        return -1;
    }
    return result;
}

long syscall_pair(long number, long *second) {
    long result = number, other = 0;
    char failed;
    __asm__ volatile("syscall\n\tsetc %1"
                     : "+a"(result), "=q"(failed), "+d"(other)
                     :
                     : "rcx", "r11", "r8", "r9", "r10", "rdi", "rsi", "memory", "cc");
    if (failed) {
        errno = (int)result;
        return -1;
    }
    *second = other;
    return result;
}
