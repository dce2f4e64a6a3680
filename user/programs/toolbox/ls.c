/* ls, stat, du, find: what is there. */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fnmatch.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "toolbox.h"

static int all, long_form, one_a_line, recursive, classify, by_time, by_size, reversed, inodes, folder_itself,
    friendly;
static int status;

struct entry {
    char *name, *path;
    struct stat st;
};

static int compare(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int order = 0;
    if (by_time) order = x->st.st_mtime < y->st.st_mtime ? 1 : x->st.st_mtime > y->st.st_mtime ? -1 : 0;
    if (by_size) order = x->st.st_size < y->st.st_size ? 1 : x->st.st_size > y->st.st_size ? -1 : 0;
    if (order == 0) order = strcmp(x->name, y->name);
    return reversed ? -order : order;
}

static char mark(mode_t mode) {
    if (!classify) return '\0';
    if (S_ISREG(mode)) return mode & 0111 ? '*' : '\0';
    return S_ISDIR(mode) ? '/' : S_ISLNK(mode) ? '@' : S_ISFIFO(mode) ? '|' : '\0';
}

static void print_long(const struct entry *e) {
    char modes[11], when[32], size[32];
    mode_text(e->st.st_mode, modes);
    strftime(when, sizeof when, "%b %e %H:%M", localtime(&e->st.st_mtime));
    if (S_ISCHR(e->st.st_mode) || S_ISBLK(e->st.st_mode))
        snprintf(size, sizeof size, "%u, %u", e->st.st_rdev >> 8 & 0xff, e->st.st_rdev & 0xff);
    else if (friendly) snprintf(size, sizeof size, "%s", human(e->st.st_size));
    else snprintf(size, sizeof size, "%ld", e->st.st_size);
    printf("%s %3u %-5u %-5u %8s %s %s", modes, e->st.st_nlink, e->st.st_uid, e->st.st_gid, size, when, e->name);
    char m = mark(e->st.st_mode);
    if (S_ISLNK(e->st.st_mode)) {
        char target[1024];
        ssize_t n = readlink(e->path, target, sizeof target);
        if (n >= 0) printf(" -> %.*s", (int)n, target);
    } else if (m) {
        putchar(m);
    }
    putchar('\n');
}

static int width_of_terminal(void) {
    struct winsize size;
    if (ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

static void print_entries(struct entry *list, size_t count) {
    qsort(list, count, sizeof *list, compare);
    if (long_form || one_a_line || !isatty(1)) {
        for (size_t i = 0; i < count; i++) {
            if (inodes) printf("%7lu ", list[i].st.st_ino);
            if (long_form) print_long(&list[i]);
            else printf("%s%.1s\n", list[i].name, (char[]){mark(list[i].st.st_mode), '\0'});
        }
        return;
    }
    size_t widest = 0;
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i].name) > widest) widest = strlen(list[i].name);
    widest += 2 + (size_t)classify;
    size_t columns = (size_t)width_of_terminal() / widest;
    if (columns == 0) columns = 1;
    size_t rows = (count + columns - 1) / columns;
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = row; i < count; i += rows) {
            int n = printf("%s%.1s", list[i].name, (char[]){mark(list[i].st.st_mode), '\0'});
            if (i + rows < count) printf("%*s", (int)widest - n, "");
        }
        putchar('\n');
    }
}

static int add_entry(struct entry **list, size_t *count, const char *name, char *path) {
    struct stat st;
    if (lstat(path, &st) < 0) {
        warn("%s", path);
        status = 1;
        free(path);
        return 0;
    }
    *list = realloc(*list, (*count + 1) * sizeof **list);
    if (!*list) err(1, "memory");
    (*list)[(*count)++] = (struct entry){strdup(name), path, st};
    return 1;
}

static void list_folder(const char *path) {
    DIR *dir = opendir(path);
    struct entry *list = NULL;
    size_t count = 0;
    if (!dir) {
        warn("%s", path);
        status = 1;
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));)
        if (all == 2 || entry->d_name[0] != '.' ||
            (all == 1 && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0))
            add_entry(&list, &count, entry->d_name, join_path(path, entry->d_name));
    closedir(dir);
    if (long_form) {
        long blocks = 0;
        for (size_t i = 0; i < count; i++) blocks += list[i].st.st_blocks;
        printf("total %ld\n", blocks / 2);
    }
    print_entries(list, count);
    for (size_t i = 0; i < count; i++) {
        int is_dots = strcmp(list[i].name, ".") == 0 || strcmp(list[i].name, "..") == 0;
        if (recursive && S_ISDIR(list[i].st.st_mode) && !is_dots) {
            printf("\n%s:\n", list[i].path);
            list_folder(list[i].path);
        }
        free(list[i].name);
        free(list[i].path);
    }
    free(list);
}

int ls_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "aAl1RFtSridh")) != -1;) {
        switch (option) {
        case 'a': all = 2; break;
        case 'A': all = 1; break;
        case 'l': long_form = 1; break;
        case '1': one_a_line = 1; break;
        case 'R': recursive = 1; break;
        case 'F': classify = 1; break;
        case 't': by_time = 1; break;
        case 'S': by_size = 1; break;
        case 'r': reversed = 1; break;
        case 'i': inodes = 1; break;
        case 'd': folder_itself = 1; break;
        case 'h': friendly = 1; break;
        default: usage("[-1AadFhilRrSt] [FILE ...]");
        }
    }
    static char *here[] = {".", NULL};
    char **names = optind < argc ? argv + optind : here;
    int name_count = optind < argc ? argc - optind : 1, folders = 0, files_shown = 0;
    struct entry *files = NULL;
    size_t file_count = 0;
    for (int i = 0; i < name_count; i++) {
        struct stat st;
        int is_folder = !folder_itself && stat(names[i], &st) == 0 && S_ISDIR(st.st_mode);
        /* With -l a link is shown itself. */
        if (is_folder && long_form && lstat(names[i], &st) == 0 && S_ISLNK(st.st_mode)) is_folder = 0;
        if (is_folder) folders++;
        else if (add_entry(&files, &file_count, names[i], strdup(names[i]))) names[i] = NULL, files_shown = 1;
        else names[i] = NULL;
    }
    if (files_shown) print_entries(files, file_count);
    for (int i = 0; i < name_count; i++) {
        if (!names[i]) continue;
        if (name_count > 1) printf(files_shown || i > 0 ? "\n%s:\n" : "%s:\n", names[i]);
        list_folder(names[i]);
    }
    return status;
}

int stat_main(int argc, char **argv) {
    int result = 0;
    if (argc < 2) usage("FILE ...");
    for (int i = 1; i < argc; i++) {
        struct stat st;
        char modes[11], when[64];
        if (lstat(argv[i], &st) < 0) {
            warn("%s", argv[i]);
            result = 1;
            continue;
        }
        mode_text(st.st_mode, modes);
        printf("  File: %s\n  Size: %-12ld Blocks: %-8ld Block size: %u\n", argv[i], st.st_size, st.st_blocks,
            st.st_blksize);
        printf("Device: %-12u Inode: %-9lu Links: %u\n", st.st_dev, st.st_ino, st.st_nlink);
        printf("  Mode: %s (%04o)  Uid: %u  Gid: %u\n", modes, st.st_mode & 07777, st.st_uid, st.st_gid);
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", gmtime(&st.st_mtime));
        printf("Modify: %s.%09ld\n", when, st.st_mtim.tv_nsec);
    }
    return result;
}

static int summarize;

static long usage_of(const char *path, int depth) {
    struct stat st;
    if (lstat(path, &st) < 0) {
        warn("%s", path);
        status = 1;
        return 0;
    }
    long blocks = st.st_blocks;
    if (S_ISDIR(st.st_mode)) {
        DIR *dir = opendir(path);
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
            char *inner = join_path(path, entry->d_name);
            blocks += usage_of(inner, depth + 1);
            free(inner);
        }
        if (dir) closedir(dir);
    }
    if (depth == 0 || (S_ISDIR(st.st_mode) && !summarize)) printf("%ld\t%s\n", (blocks + 1) / 2, path);
    return blocks;
}

int du_main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "sk")) != -1;) {
        if (option == 's') summarize = 1;
        else if (option == '?') usage("[-s] [FILE ...]");
    }
    if (optind == argc) usage_of(".", 0);
    for (int i = optind; i < argc; i++) usage_of(argv[i], 0);
    return status;
}

/* find PATH … [-name PATTERN] [-type C] [-size +N] [-exec COMMAND … ;] [-maxdepth N] [-print] */
static const char *wanted_name;
static char wanted_type;
static int depth_most = 1000;
static char **command;
static int command_length;

static void run_on(char *path) {
    char **words = calloc((size_t)command_length + 1, sizeof *words);
    for (int i = 0; i < command_length; i++) words[i] = strcmp(command[i], "{}") == 0 ? path : command[i];
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execvp(words[0], words);
        warn("%s", words[0]);
        _exit(127);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
    free(words);
}

static void visit(char *path, int depth) {
    struct stat st;
    if (lstat(path, &st) < 0) {
        warn("%s", path);
        status = 1;
        return;
    }
    char *copy = strdup(path);
    mode_t type = st.st_mode & S_IFMT;
    char letter = type == S_IFDIR ? 'd' : type == S_IFLNK ? 'l' : type == S_IFREG ? 'f' : type == S_IFCHR ? 'c' : 'p';
    int matches = (!wanted_name || fnmatch(wanted_name, basename(copy), 0) == 0) &&
                  (!wanted_type || wanted_type == letter);
    free(copy);
    if (matches && command) run_on(path);
    else if (matches) puts(path);
    if (type != S_IFDIR || depth >= depth_most) return;
    DIR *dir = opendir(path);
    if (!dir) {
        warn("%s", path);
        status = 1;
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *inner = join_path(path, entry->d_name);
        visit(inner, depth + 1);
        free(inner);
    }
    closedir(dir);
}

int find_main(int argc, char **argv) {
    int first = 1;
    while (first < argc && argv[first][0] != '-') first++;
    for (int i = first; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "-print") == 0) continue;
        if (i + 1 >= argc) errx(1, "%s wants an argument", name);
        if (strcmp(name, "-name") == 0) wanted_name = argv[++i];
        else if (strcmp(name, "-type") == 0) wanted_type = *argv[++i];
        else if (strcmp(name, "-maxdepth") == 0) depth_most = atoi(argv[++i]);
        else if (strcmp(name, "-exec") == 0) {
            command = argv + ++i;
            for (; i < argc && strcmp(argv[i], ";") != 0; i++) command_length++;
        } else errx(1, "unknown: %s", name);
    }
    if (first == 1) visit(".", 0);
    for (int i = 1; i < first; i++) visit(argv[i], 0);
    return status;
}
