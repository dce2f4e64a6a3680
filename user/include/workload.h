/* Operations of the kernel in loops, for the programs that measure them. Each prepares what it needs, does its loop between a meter's
   begin and end, and cleans up. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

/* Who measures. */
struct meter {
    /* All is prepared. Gives how often the operation is to be carried out, at most as often as was asked for. */
    long (*begin)(const char *name, long count);
    /* It was carried out so often. */
    void (*end)(const char *name, long count);
};

/* A system call that does nothing: getppid's. */
void work_syscall(const struct meter *meter, long count);
/* The first write to a page of new memory, one page after the other: a fault brings neighbours too. */
void work_zfod(const struct meter *meter, long count);
/* The first write to a page that is shared since fork, by the child. So many pages are shared, of which the first `count` are written. */
void work_cow(const struct meter *meter, long count, long pages);
/* fork; the child ends at once; wait. */
void work_fork(const struct meter *meter, long count);
/* fork; the child becomes the program at `path`, with the argument "nothing"; wait. */
void work_forkexec(const struct meter *meter, long count, const char *path);
/* A byte to another process and one back, by pipes. */
void work_pingpong(const struct meter *meter, long count);
/* mmap of four pages, a write, munmap. */
void work_mmap(const struct meter *meter, long count);
/* A page loses and gets back its right to be written, and is written, while so many other threads run in the address space. */
void work_mprotect(const struct meter *meter, long count, long others);

#endif
