/* Sleeping on a word of memory. */
#ifndef _SYS_UMTX_H
#define _SYS_UMTX_H

/* 0, or -1: EBUSY *word is not value, EWOULDBLOCK after timeout microseconds (0: never), EINTR. */
int umtx_sleep(volatile const int *word, int value, int timeout);
int umtx_wakeup(volatile const int *word, int count);

#endif
