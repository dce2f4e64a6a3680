/* Errors of system calls come back as numbers; a bad pointer harms nobody. */
#include "exuvia.h"

static int check(const char *what, long result, int expected) {
    int right = result == -1 && errno == expected;
    printf("%-34s errno %d%s\n", what, errno, right ? "" : "  WRONG");
    return !right;
}

int main(void) {
    static char page[4096];
    int wrong = 0;
    wrong += check("system call 12345", syscall6(12345, 0, 0, 0, 0, 0, 0), ENOSYS);
    wrong += check("write to descriptor 7", write(7, "x", 1), EBADF);
    wrong += check("write from address 8", write(1, (void *)8, 4), EFAULT);
    wrong += check("write from the kernel", write(1, (void *)0xffffffff80100000, 4), EFAULT);
    wrong += check("write from a non-canonical address", write(1, (void *)0x800000000000, 4), EFAULT);
    wrong += check("write of too many bytes", write(1, page, (size_t)-1), EINVAL);
    wrong += write(1, page, 0) != 0;
    puts(wrong ? "wrong" : "right");
    return wrong;
}
