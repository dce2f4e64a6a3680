/* assert(): says where and ends the program by SIGABRT. */
#undef assert
#ifdef NDEBUG
#define assert(claim) ((void)0)
#else
#define assert(claim) ((claim) ? (void)0 : __assert_failed(#claim, __FILE__, __LINE__))
#endif
#ifndef _ASSERT_H
#define _ASSERT_H

void __assert_failed(const char *claim, const char *file, int line) __attribute__((noreturn));

#endif
