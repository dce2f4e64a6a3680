/* What the exercisers share. */
#include <check.h>
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include "libc.h"

enum { PRINTED_MOST = 10, PAGE = 4096 };
static int wrong;

void differs(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED) <= PRINTED_MOST) printf("%s: %s\n", getprogname(), text);
}

int all_right(void) { return wrong == 0; }

int verdict(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (wrong) printf("%s: WRONG, %d differences: %s\n", getprogname(), wrong, text);
    else printf("%s: ok: %s\n", getprogname(), text);
    fflush(stdout);
    return wrong != 0;
}

void cannot(const char *what) { err(2, "%s", what); }

void expect_child(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) cannot("waitpid");
    if (WIFSIGNALED(status)) differs("child %d ended by signal %d", pid, WTERMSIG(status));
    else if (WEXITSTATUS(status)) differs("child %d ended with status %d", pid, WEXITSTATUS(status));
}

uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

void fill_page(void *page, uint64_t seed) {
    uint64_t *words = page, state = seed;
    for (size_t i = 0; i < PAGE / sizeof *words; i++) words[i] = state += 0x9e3779b97f4a7c15;
}

int page_is(const void *page, uint64_t seed) {
    const uint64_t *words = page;
    uint64_t state = seed;
    for (size_t i = 0; i < PAGE / sizeof *words; i++) {
        state += 0x9e3779b97f4a7c15;
        if (words[i] == state) continue;
        differs("%p: 0x%lx and not 0x%lx", (const void *)(words + i), words[i], state);
        return 0;
    }
    return 1;
}

void *get_pages(size_t count) {
    void *pages = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (pages == MAP_FAILED) cannot("mmap");
    return pages;
}

long argument(int argc, char **argv, int n, long otherwise) {
    return argc > n ? strtol(argv[n], NULL, 0) : otherwise;
}

long kernel_number(const char *name, long otherwise) {
    union {
        int i;
        long l;
    } value = {.l = 0};
    size_t size = sizeof value;
    if (sysctlbyname(name, &value, &size, NULL, 0) < 0) return otherwise;
    return size == sizeof(int) ? value.i : value.l;
}
