/* Locks and conditions on words of memory: the kernel is asked only when somebody must sleep or be woken. */
#include <sys/umtx.h>
#include "libc.h"

/* Set by the first pthread_create. */
int __threaded;

int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr) {
    (void)attr;
    mutex->state = 0;
    return 0;
}
int pthread_mutex_destroy(pthread_mutex_t *mutex) { return mutex->state ? EBUSY : 0; }

int pthread_mutex_trylock(pthread_mutex_t *mutex) {
    int expected = 0;
    int got = __atomic_compare_exchange_n(&mutex->state, &expected, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    return got ? 0 : EBUSY;
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (pthread_mutex_trylock(mutex) == 0) return 0;
    while (__atomic_exchange_n(&mutex->state, 2, __ATOMIC_ACQUIRE) != 0) umtx_sleep(&mutex->state, 2, 0);
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    if (__atomic_exchange_n(&mutex->state, 0, __ATOMIC_RELEASE) == 2) umtx_wakeup(&mutex->state, 1);
    return 0;
}

void __lock(pthread_mutex_t *mutex) {
    if (__threaded) pthread_mutex_lock(mutex);
}
void __unlock(pthread_mutex_t *mutex) {
    if (__threaded) pthread_mutex_unlock(mutex);
}

int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attr) {
    (void)attr;
    condition->sequence = 0;
    return 0;
}
int pthread_cond_destroy(pthread_cond_t *condition) {
    (void)condition;
    return 0;
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    int sequence = condition->sequence;
    pthread_mutex_unlock(mutex);
    umtx_sleep(&condition->sequence, sequence, 0);
    while (__atomic_exchange_n(&mutex->state, 2, __ATOMIC_ACQUIRE) != 0) umtx_sleep(&mutex->state, 2, 0);
    return 0;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec now;
    int sequence = condition->sequence, error = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    long microseconds = (until->tv_sec - now.tv_sec) * 1000000 + (until->tv_nsec - now.tv_nsec) / 1000;
    if (microseconds <= 0) return ETIMEDOUT;
    if (microseconds > 1000000000) microseconds = 1000000000;
    pthread_mutex_unlock(mutex);
    if (umtx_sleep(&condition->sequence, sequence, (int)microseconds) < 0 && errno == EWOULDBLOCK) error = ETIMEDOUT;
    while (__atomic_exchange_n(&mutex->state, 2, __ATOMIC_ACQUIRE) != 0) umtx_sleep(&mutex->state, 2, 0);
    return error;
}

int pthread_cond_signal(pthread_cond_t *condition) {
    __atomic_fetch_add(&condition->sequence, 1, __ATOMIC_SEQ_CST);
    umtx_wakeup(&condition->sequence, 1);
    return 0;
}
int pthread_cond_broadcast(pthread_cond_t *condition) {
    __atomic_fetch_add(&condition->sequence, 1, __ATOMIC_SEQ_CST);
    umtx_wakeup(&condition->sequence, 0);
    return 0;
}

int pthread_barrier_init(pthread_barrier_t *barrier, const pthread_barrierattr_t *attr, unsigned count) {
    (void)attr;
    *barrier = (pthread_barrier_t){.needed = count};
    return count ? 0 : EINVAL;
}
int pthread_barrier_destroy(pthread_barrier_t *barrier) {
    (void)barrier;
    return 0;
}
int pthread_barrier_wait(pthread_barrier_t *barrier) {
    pthread_mutex_lock(&barrier->mutex);
    unsigned generation = barrier->generation;
    int last = ++barrier->arrived == barrier->needed;
    if (last) {
        barrier->arrived = 0;
        barrier->generation++;
        pthread_cond_broadcast(&barrier->condition);
    } else {
        while (generation == barrier->generation) pthread_cond_wait(&barrier->condition, &barrier->mutex);
    }
    pthread_mutex_unlock(&barrier->mutex);
    return last ? PTHREAD_BARRIER_SERIAL_THREAD : 0;
}
