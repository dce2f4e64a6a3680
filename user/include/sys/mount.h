/* Mounted file systems. */
#ifndef _SYS_MOUNT_H
#define _SYS_MOUNT_H

#include <sys/types.h>

#define MFSNAMELEN 16
#define MNAMELEN 80
#define MNT_RDONLY 0x1
#define MNT_WAIT 1
#define MNT_NOWAIT 2
#define MNT_LOCAL 0x1000
#define MNT_FORCE 0x80000

typedef struct {
    int val[2];
} fsid_t;

struct statfs {
    long f_spare2, f_bsize, f_iosize, f_blocks, f_bfree, f_bavail, f_files, f_ffree;
    fsid_t f_fsid;
    uid_t f_owner;
    int f_type, f_flags;
    long f_syncwrites, f_asyncwrites;
    char f_fstypename[MFSNAMELEN], f_mntonname[MNAMELEN];
    long f_syncreads, f_asyncreads;
    short f_spares1;
    char f_mntfromname[MNAMELEN];
    short f_spares2;
    long f_spare[2];
};

int statfs(const char *path, struct statfs *to);
int fstatfs(int fd, struct statfs *to);
int getfsstat(struct statfs *to, long size, int flags);
int mount(const char *type, const char *path, int flags, void *data);
int unmount(const char *path, int flags);

#endif
