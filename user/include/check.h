/* What the exercisers share: they say what differs, and at last "NAME: ok" or how much was wrong. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Prints what is wrong and remembers it. */
void differs(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Nothing has differed so far: for children, whose verdict is their status. */
int all_right(void);
/* Prints the verdict with these details; the exit status. */
int verdict(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the program: something that must work did not. */
void cannot(const char *what) __attribute__((noreturn));
/* Waits for a child: a status other than 0 is a difference. */
void expect_child(pid_t pid);

/* Fills a page with words that depend on the seed; checks them. */
void fill_page(void *page, uint64_t seed);
int page_is(const void *page, uint64_t seed);
/* Zeroed pages of memory of its own. */
void *get_pages(size_t count);
/* The nth argument as a number, or what to take otherwise. */
long argument(int argc, char **argv, int n, long otherwise);
/* A variable of the kernel, or what to take otherwise. */
long kernel_number(const char *name, long otherwise);
/* The next of a sequence of pseudo-random numbers. */
uint64_t next_random(uint64_t *state);

#endif
