/* Commands that make, move and remove files: mkdir rmdir rm mv cp ln touch chmod mkfifo truncate readlink. */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include "toolbox.h"

static int make_parents(char *path, mode_t mode) {
    for (char *s = path + 1; *s; s++) {
        if (*s != '/') continue;
        *s = '\0';
        int failed = mkdir(path, 0777) < 0 && errno != EEXIST;
        *s = '/';
        if (failed) return -1;
    }
    struct stat st;
    if (mkdir(path, mode) == 0) return 0;
    return errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : -1;
}

int mkdir_main(int argc, char **argv) {
    int parents = 0, status = 0;
    mode_t mode = 0777;
    for (int option; (option = getopt(argc, argv, "pm:")) != -1;) {
        if (option == 'p') parents = 1;
        else if (option == 'm') mode = (mode_t)strtol(optarg, NULL, 8);
        else usage("[-p] [-m MODE] FOLDER ...");
    }
    if (optind == argc) usage("[-p] [-m MODE] FOLDER ...");
    for (int i = optind; i < argc; i++)
        if ((parents ? make_parents(argv[i], mode) : mkdir(argv[i], mode)) < 0) {
            warn("%s", argv[i]);
            status = 1;
        }
    return status;
}

int rmdir_main(int argc, char **argv) {
    int status = 0;
    if (argc < 2) usage("FOLDER ...");
    for (int i = 1; i < argc; i++)
        if (rmdir(argv[i]) < 0) warn("%s", argv[i]), status = 1;
    return status;
}

static int is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static int remove_tree(const char *path, int force) {
    struct stat st;
    int status = 0;
    if (lstat(path, &st) < 0) {
        if (force && errno == ENOENT) return 0;
        warn("%s", path);
        return 1;
    }
    if (!S_ISDIR(st.st_mode)) {
        if (unlink(path) == 0) return 0;
        warn("%s", path);
        return 1;
    }
    DIR *dir = opendir(path);
    /* All names first: a folder that changes while it is read may hide some. */
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (is_dots(entry->d_name)) continue;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = join_path(path, entry->d_name);
    }
    if (dir) closedir(dir);
    for (size_t i = 0; i < count; i++) {
        status |= remove_tree(names[i], force);
        free(names[i]);
    }
    free(names);
    if (rmdir(path) < 0) warn("%s", path), status = 1;
    return status;
}

int rm_main(int argc, char **argv) {
    int force = 0, recursive = 0, status = 0;
    for (int option; (option = getopt(argc, argv, "frRi")) != -1;) {
        if (option == 'f') force = 1;
        else if (option == 'r' || option == 'R') recursive = 1;
        else usage("[-fr] FILE ...");
    }
    if (optind == argc && !force) usage("[-fr] FILE ...");
    for (int i = optind; i < argc; i++) {
        struct stat st;
        if (!recursive && lstat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            warnx("%s: is a directory", argv[i]);
            status = 1;
            continue;
        }
        status |= remove_tree(argv[i], force);
    }
    return status;
}

static int copy_recursive, copy_modes;

static int copy(const char *from, const char *to) {
    struct stat st, there;
    if ((copy_recursive ? lstat : stat)(from, &st) < 0) {
        warn("%s", from);
        return 1;
    }
    if (stat(to, &there) == 0 && there.st_ino == st.st_ino && there.st_dev == st.st_dev) {
        warnx("%s and %s are the same file", from, to);
        return 1;
    }
    if (S_ISDIR(st.st_mode)) {
        int status = 0;
        if (!copy_recursive) {
            warnx("%s: is a directory", from);
            return 1;
        }
        if (mkdir(to, st.st_mode | 0700) < 0 && errno != EEXIST) {
            warn("%s", to);
            return 1;
        }
        DIR *dir = opendir(from);
        if (!dir) {
            warn("%s", from);
            return 1;
        }
        for (struct dirent *entry; (entry = readdir(dir));) {
            if (is_dots(entry->d_name)) continue;
            char *source = join_path(from, entry->d_name), *target = join_path(to, entry->d_name);
            status |= copy(source, target);
            free(source);
            free(target);
        }
        closedir(dir);
        return status;
    }
    if (S_ISLNK(st.st_mode)) {
        char target[1024];
        ssize_t n = readlink(from, target, sizeof target - 1);
        if (n >= 0) target[n] = '\0';
        if (n < 0 || symlink(target, to) < 0) {
            warn("%s", to);
            return 1;
        }
        return 0;
    }
    int source = open(from, O_RDONLY);
    if (source < 0) {
        warn("%s", from);
        return 1;
    }
    int target = open(to, O_WRONLY | O_CREAT | O_TRUNC, st.st_mode & 0777);
    int status = 0;
    if (target < 0 || copy_bytes(source, target) < 0) {
        warn("%s", to);
        status = 1;
    }
    if (target >= 0 && copy_modes) fchmod(target, st.st_mode & 07777);
    if (target >= 0 && close(target) < 0) warn("%s", to), status = 1;
    close(source);
    return status;
}

static int is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The last argument may be a folder: each file then goes into it. */
static int to_each(int argc, char **argv, int (*run)(const char *from, const char *to)) {
    int status = 0;
    if (argc < 2) usage("[OPTIONS] FILE ... TARGET");
    const char *last = argv[argc - 1];
    int folder = is_folder(last);
    if (argc > 2 && !folder) errx(1, "%s is not a directory", last);
    for (int i = 0; i < argc - 1; i++) {
        if (!folder) return run(argv[i], last);
        char *name = strdup(argv[i]), *target = join_path(last, basename(name));
        status |= run(argv[i], target);
        free(target);
        free(name);
    }
    return status;
}

int cp_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "rRpaf")) != -1;) {
        if (option == 'r' || option == 'R' || option == 'a') copy_recursive = 1;
        if (option == 'p' || option == 'a') copy_modes = 1;
        if (option == '?') usage("[-rp] FILE ... TARGET");
    }
    return to_each(argc - optind, argv + optind, copy);
}

static int move(const char *from, const char *to) {
    if (rename(from, to) == 0) return 0;
    if (errno != EXDEV) {
        warn("%s", from);
        return 1;
    }
    copy_recursive = copy_modes = 1;
    return copy(from, to) || remove_tree(from, 0);
}

int mv_main(int argc, char **argv) {
    int first = argc > 1 && strcmp(argv[1], "-f") == 0 ? 2 : 1;
    return to_each(argc - first, argv + first, move);
}

static int symbolic, force_link;

static int make_link(const char *from, const char *to) {
    if (force_link) unlink(to);
    if ((symbolic ? symlink : link)(from, to) == 0) return 0;
    warn("%s", to);
    return 1;
}

int ln_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "sf")) != -1;) {
        if (option == 's') symbolic = 1;
        else if (option == 'f') force_link = 1;
        else usage("[-sf] TARGET ... NAME");
    }
    if (argc - optind == 1) {
        char *name = strdup(argv[optind]);
        return make_link(argv[optind], basename(name));
    }
    return to_each(argc - optind, argv + optind, make_link);
}

int touch_main(int argc, char **argv) {
    int status = 0, create = 1;
    for (int option; (option = getopt(argc, argv, "cam")) != -1;)
        if (option == 'c') create = 0;
    if (optind == argc) usage("[-c] FILE ...");
    for (int i = optind; i < argc; i++) {
        int fd = create ? open(argv[i], O_WRONLY | O_CREAT, 0666) : -1;
        if (fd >= 0) close(fd);
        if (utimes(argv[i], NULL) < 0 && (create || errno != ENOENT)) warn("%s", argv[i]), status = 1;
    }
    return status;
}

/* u+x,go-w or an octal number. */
static int new_mode(const char *text, mode_t old, mode_t *mode) {
    char *end;
    long octal = strtol(text, &end, 8);
    if (!*end && end != text) {
        *mode = (mode_t)octal;
        return octal >= 0 && octal <= 07777;
    }
    *mode = old & 07777;
    for (const char *s = text; *s;) {
        mode_t who = 0, what = 0;
        for (; *s && strchr("ugoa", *s); s++) who |= *s == 'u' ? 0700 : *s == 'g' ? 070 : *s == 'o' ? 07 : 0777;
        if (!who) who = 0777;
        char op = *s;
        if (!op || !strchr("+-=", op)) return 0;
        for (s++; *s && strchr("rwxXst", *s); s++) {
            if (*s == 'r') what |= 0444;
            if (*s == 'w') what |= 0222;
            if (*s == 'x' || (*s == 'X' && (S_ISDIR(old) || (old & 0111)))) what |= 0111;
            if (*s == 's') *mode = op == '-' ? *mode & ~((who & 0700 ? S_ISUID : 0) | (who & 070 ? S_ISGID : 0))
                                             : *mode | ((who & 0700 ? S_ISUID : 0) | (who & 070 ? S_ISGID : 0));
            if (*s == 't') *mode = op == '-' ? *mode & ~S_ISVTX : *mode | S_ISVTX;
        }
        if (op == '+') *mode |= what & who;
        else if (op == '-') *mode &= (mode_t)~(what & who);
        else *mode = (mode_t)((*mode & ~who) | (what & who));
        if (*s == ',') s++;
        else if (*s) return 0;
    }
    return 1;
}

static int change_mode(const char *text, const char *path, int recursive) {
    struct stat st;
    mode_t mode;
    int status = 0;
    if (stat(path, &st) < 0) {
        warn("%s", path);
        return 1;
    }
    if (!new_mode(text, st.st_mode, &mode)) errx(1, "%s: not a mode", text);
    if (chmod(path, mode) < 0) warn("%s", path), status = 1;
    DIR *dir = recursive && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (is_dots(entry->d_name)) continue;
        char *inner = join_path(path, entry->d_name);
        status |= change_mode(text, inner, 1);
        free(inner);
    }
    if (dir) closedir(dir);
    return status;
}

int chmod_main(int argc, char **argv) {
    int recursive = argc > 1 && strcmp(argv[1], "-R") == 0, first = 1 + recursive, status = 0;
    if (argc - first < 2) usage("[-R] MODE FILE ...");
    for (int i = first + 1; i < argc; i++) status |= change_mode(argv[first], argv[i], recursive);
    return status;
}

int mkfifo_main(int argc, char **argv) {
    int status = 0;
    if (argc < 2) usage("NAME ...");
    for (int i = 1; i < argc; i++)
        if (mkfifo(argv[i], 0666) < 0) warn("%s", argv[i]), status = 1;
    return status;
}

int truncate_main(int argc, char **argv) {
    long size = -1;
    int status = 0;
    for (int option; (option = getopt(argc, argv, "s:")) != -1;)
        if (option == 's') size = size_argument(optarg);
    if (size < 0 || optind == argc) usage("-s SIZE FILE ...");
    for (int i = optind; i < argc; i++) {
        int fd = open(argv[i], O_WRONLY | O_CREAT, 0666);
        if (fd < 0 || ftruncate(fd, size) < 0) warn("%s", argv[i]), status = 1;
        if (fd >= 0) close(fd);
    }
    return status;
}

int readlink_main(int argc, char **argv) {
    char text[1024];
    if (argc > 2 && strcmp(argv[1], "-f") == 0) {
        if (!realpath(argv[2], text)) return 1;
        puts(text);
        return 0;
    }
    if (argc != 2) usage("[-f] PATH");
    ssize_t n = readlink(argv[1], text, sizeof text);
    if (n < 0) return 1;
    printf("%.*s\n", (int)n, text);
    return 0;
}
