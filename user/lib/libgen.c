/* Parts of paths. */
#include <libgen.h>
#include <stddef.h>
#include <string.h>

static void strip(char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') path[--length] = '\0';
}

char *basename(char *path) {
    if (!path || !*path) return ".";
    strip(path);
    char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

char *dirname(char *path) {
    if (!path || !*path) return ".";
    strip(path);
    char *slash = strrchr(path, '/');
    if (!slash) return ".";
    if (slash == path) return "/";
    *slash = '\0';
    strip(path);
    return path;
}
