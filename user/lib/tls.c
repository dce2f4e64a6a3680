/*
 * Thread-local storage. The block of a thread is [variables][control block]; FS holds the control block's address, and
 * its first word is that address too (x86-64 ABI, TLS variant 2). Programs without thread-local variables and without
 * threads never set FS.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/tls.h>
#include "libc.h"

struct elf_header {
    char ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, program_offset, section_offset;
    uint32_t flags;
    uint16_t size, program_size, program_count;
};
struct program_header {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_size, memory_size, alignment;
};
enum { PT_TLS = 7 };
extern const struct elf_header __ehdr_start __attribute__((weak, visibility("hidden")));

int __tls_ready;
static struct __lwp main_thread;

static const struct program_header *find_segment(void) {
    if (!&__ehdr_start) return NULL;
    const char *at = (const char *)&__ehdr_start + __ehdr_start.program_offset;
    for (int i = 0; i < __ehdr_start.program_count; i++, at += sizeof(struct program_header))
        if (((const struct program_header *)at)->type == PT_TLS) return (const struct program_header *)at;
    return NULL;
}

size_t __tls_size(void) {
    const struct program_header *segment = find_segment();
    if (!segment) return 0;
    size_t alignment = segment->alignment > 1 ? segment->alignment : 1;
    return (segment->memory_size + alignment - 1) & ~(alignment - 1);
}

void __tls_fill(struct __lwp *thread) {
    const struct program_header *segment = find_segment();
    thread->self = thread;
    if (segment) memcpy((char *)thread - __tls_size(), (const void *)segment->address, segment->file_size);
}

void __make_tls(void) {
    if (__tls_ready) return;
    struct __lwp *thread = &main_thread;
    if (find_segment()) {
        size_t below = (__tls_size() + 63) & ~(size_t)63;
        char *area = mmap(NULL, below + sizeof *thread, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (area == MAP_FAILED) abort();
        thread = (struct __lwp *)(area + below);
    }
    __tls_fill(thread);
    struct tls_info info = {thread, -1};
    if (set_tls_area(0, &info, sizeof info) < 0) abort();
    __tls_ready = 1;
}

void __start_tls(void) {
    if (find_segment()) __make_tls();
}

pthread_t pthread_self(void) {
    __make_tls();
    struct __lwp *thread;
    __asm__("movq %%fs:0, %0" : "=r"(thread));
    return thread;
}
