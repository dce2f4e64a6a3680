/*
 * Threads. A thread is an lwp with a mapping of its own that holds a guard page, the stack, the thread-local variables and
 * the control block. An ending thread wakes its joiner, and the kernel then sets `gone` when no user code of it can run any
 * more: only then may the mapping be taken away. Left out: cancellation, scheduling attributes, recursive mutexes.
 */
#include <signal.h>
#include <string.h>
#include <sys/lwp.h>
#include <sys/mman.h>
#include <sys/tls.h>
#include <sys/umtx.h>
#include <unistd.h>
#include "libc.h"

enum { RUNNING, ENDED, DEFAULT_STACK = 256 << 10 };

/* Detached threads that ended: their mappings go when the next thread is made. */
static struct __lwp *leftovers;
static pthread_mutex_t leftovers_lock;

static struct {
    int used;
    void (*destructor)(void *);
} keys[PTHREAD_KEYS_MAX];
static pthread_mutex_t keys_lock;

int pthread_attr_init(pthread_attr_t *attr) {
    *attr = (pthread_attr_t){DEFAULT_STACK, 0};
    return 0;
}
int pthread_attr_destroy(pthread_attr_t *attr) {
    (void)attr;
    return 0;
}
int pthread_attr_setstacksize(pthread_attr_t *attr, size_t size) {
    if (size < 16384) return EINVAL;
    attr->stack_size = size;
    return 0;
}
int pthread_attr_setdetachstate(pthread_attr_t *attr, int state) {
    attr->detached = state;
    return 0;
}

__attribute__((used, noreturn)) void __thread_start_c(struct __lwp *thread) {
    struct tls_info info = {thread, -1};
    set_tls_area(0, &info, sizeof info);
    pthread_exit(thread->function(thread->argument));
}

/* The kernel enters with the argument in RDI and RSP as it was told. */
void __thread_start(void *thread);
__asm__(".text\n.globl __thread_start\n"
        "__thread_start:\n"
        "  xorl %ebp, %ebp\n"
        "  andq $-16, %rsp\n"
        "  call __thread_start_c\n");

static void bury_leftovers(void) {
    __lock(&leftovers_lock);
    for (struct __lwp **link = &leftovers; *link;) {
        struct __lwp *thread = *link;
        if (thread->gone) {
            *link = thread->next;
            munmap(thread->area, thread->area_size);
        } else {
            link = &thread->next;
        }
    }
    __unlock(&leftovers_lock);
}

int pthread_create(pthread_t *result, const pthread_attr_t *attr, void *(*function)(void *), void *argument) {
    size_t stack = (attr ? attr->stack_size : DEFAULT_STACK) + 4095;
    stack -= stack % 4096;
    size_t size = (4096 + stack + __tls_size() + sizeof(struct __lwp) + 4095) & ~(size_t)4095;
    __make_tls();
    __threaded = 1;
    bury_leftovers();
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (area == MAP_FAILED) return EAGAIN;
    mprotect(area, 4096, PROT_NONE);
    struct __lwp *thread = (struct __lwp *)((uintptr_t)(area + size - sizeof(struct __lwp)) & ~(uintptr_t)63);
    __tls_fill(thread);
    thread->function = function;
    thread->argument = argument;
    thread->area = area;
    thread->area_size = size;
    thread->detached = attr ? attr->detached : 0;
    struct lwp_params params = {__thread_start, thread, (char *)thread - __tls_size(), &thread->tid, &thread->tid2};
    *result = thread;
    if (lwp_create(&params) < 0) {
        munmap(area, size);
        return EAGAIN;
    }
    return 0;
}

void pthread_exit(void *result) {
    struct __lwp *self = pthread_self();
    self->result = result;
    for (int round = 0, again = 1; again && round < 4; round++) {
        again = 0;
        for (unsigned i = 0; i < PTHREAD_KEYS_MAX; i++) {
            void *value = (void *)self->specific[i];
            self->specific[i] = NULL;
            if (value && keys[i].used && keys[i].destructor) keys[i].destructor(value), again = 1;
        }
    }
    if (!self->area) {
        /* The main thread: the process goes on with its other threads. */
        self->state = ENDED;
        umtx_wakeup(&self->state, 0);
        extexit(EXTEXIT_LWP, 0, NULL);
    }
    __lock(&leftovers_lock);
    if (self->detached) {
        self->next = leftovers;
        leftovers = self;
    }
    self->state = ENDED;
    __unlock(&leftovers_lock);
    umtx_wakeup(&self->state, 0);
    extexit(EXTEXIT_LWP | EXTEXIT_SETINT, 1, (void *)&self->gone);
    for (;;) _exit(127);
}

int pthread_join(pthread_t thread, void **result) {
    if (thread == pthread_self()) return EDEADLK;
    if (thread->detached) return EINVAL;
    while (thread->state != ENDED) umtx_sleep(&thread->state, RUNNING, 0);
    while (!thread->gone) sched_yield();
    if (result) *result = thread->result;
    munmap(thread->area, thread->area_size);
    return 0;
}

int pthread_detach(pthread_t thread) {
    __lock(&leftovers_lock);
    thread->detached = 1;
    if (thread->state == ENDED) {
        thread->next = leftovers;
        leftovers = thread;
    }
    __unlock(&leftovers_lock);
    return 0;
}

int pthread_equal(pthread_t a, pthread_t b) { return a == b; }
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    return sigprocmask(how, set, old) < 0 ? errno : 0;
}
int pthread_kill(pthread_t thread, int signal) {
    return lwp_kill(getpid(), thread->area ? thread->tid : 1, signal) < 0 ? errno : 0;
}

int pthread_once(pthread_once_t *once, void (*function)(void)) {
    int fresh = 0;
    if (__atomic_load_n(&once->state, __ATOMIC_ACQUIRE) == 2) return 0;
    if (__atomic_compare_exchange_n(&once->state, &fresh, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        function();
        __atomic_store_n(&once->state, 2, __ATOMIC_RELEASE);
        umtx_wakeup(&once->state, 0);
        return 0;
    }
    while (__atomic_load_n(&once->state, __ATOMIC_ACQUIRE) != 2) umtx_sleep(&once->state, 1, 0);
    return 0;
}

int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    int error = EAGAIN;
    __lock(&keys_lock);
    for (unsigned i = 0; i < PTHREAD_KEYS_MAX && error; i++)
        if (!keys[i].used) {
            keys[i].used = 1;
            keys[i].destructor = destructor;
            *key = i;
            error = 0;
        }
    __unlock(&keys_lock);
    return error;
}

void *pthread_getspecific(pthread_key_t key) {
    return key < PTHREAD_KEYS_MAX ? (void *)pthread_self()->specific[key] : NULL;
}

int pthread_setspecific(pthread_key_t key, const void *value) {
    if (key >= PTHREAD_KEYS_MAX) return EINVAL;
    pthread_self()->specific[key] = value;
    return 0;
}
