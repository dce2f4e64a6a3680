/* The small commands, all in one file: each is a function that takes what main() takes. */
#ifndef TOOLBOX_H
#define TOOLBOX_H

#include <stddef.h>
#include <sys/types.h>

#define COMMANDS(each) \
    each(basename) each(cat) each(chmod) each(cmp) each(cp) each(cut) each(date) each(dd) each(df) each(dirname) \
    each(dmesg) each(du) each(echo) each(env) each(expr) each(false) each(find) each(free) each(grep) each(head) \
    each(hexdump) each(hostname) each(id) each(kill) each(ln) each(ls) each(mkdir) each(mkfifo) each(mount) each(mv) \
    each(nice) each(nohup) each(od) each(poweroff) each(printenv) each(ps) each(pwd) each(readlink) each(reboot) \
    each(rm) each(rmdir) each(sed) each(seq) each(sleep) each(sort) each(stat) each(sync) each(sysctl) each(tail) \
    each(tee) each(time) each(top) each(touch) each(tr) each(true) each(truncate) each(tty) each(umount) each(uname) \
    each(uniq) each(uptime) each(vmstat) each(wc) each(which) each(xargs) each(yes)

#define DECLARE(name) int name##_main(int argc, char **argv);
COMMANDS(DECLARE)
#undef DECLARE

/* common.c */

/* Runs the command on each named file, or on standard input; "-" is standard input too. Worst status. */
struct __file;
int each_file(int argc, char **argv, int (*run)(struct __file *file, const char *name));
/* A variable of the kernel as a number; otherwise if there is none. */
long sysctl_number(const char *name, long otherwise);
/* The processes, at *count; the vector is malloc's. */
struct kinfo_proc *processes(int *count);
/* A number of bytes with K, M or G behind, or -1. */
long size_argument(const char *text);
/* 1234567 → "1.2M". */
const char *human(long bytes);
/* drwxr-xr-x */
void mode_text(mode_t mode, char to[11]);
int copy_bytes(int from, int to);
char *join_path(const char *folder, const char *name);
void usage(const char *text) __attribute__((noreturn));

/* regex.c */

struct regex;
enum { REGEX_EXTENDED = 1, REGEX_IGNORE_CASE = 2 };
struct span {
    const char *from, *to;
};
/* Ends the program if the pattern is wrong. */
struct regex *regex_compile(const char *pattern, int flags);
/* Searches in s; spans[0] is the match, the others are groups. 0: none. */
int regex_search(struct regex *regex, const char *s, int at_start, struct span spans[10]);

#endif
