/* Variables of the kernel by name: {0, 3} turns a name into numbers. */
#include <string.h>
#include <sys/sysctl.h>

int sysctlnametomib(const char *name, int *mib, size_t *length) {
    static const int NAME_TO_NUMBERS[2] = {0, 3};
    *length *= sizeof *mib;
    int result = sysctl(NAME_TO_NUMBERS, 2, mib, length, name, strlen(name));
    *length /= sizeof *mib;
    return result;
}

int sysctlbyname(const char *name, void *old, size_t *old_size, const void *new, size_t new_size) {
    int mib[CTL_MAXNAME];
    size_t length = CTL_MAXNAME;
    if (sysctlnametomib(name, mib, &length) < 0) return -1;
    return sysctl(mib, (u_int)length, old, old_size, new, new_size);
}
