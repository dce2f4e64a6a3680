/* The environment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The vector is ours (and not the kernel's, on the stack) once it has grown. */
static char **owned;

static char **find(const char *name, size_t length) {
    for (char **e = environ; e && *e; e++)
        if (strncmp(*e, name, length) == 0 && (*e)[length] == '=') return e;
    return NULL;
}

char *getenv(const char *name) {
    size_t length = strlen(name);
    char **e = find(name, length);
    return e ? *e + length + 1 : NULL;
}

int putenv(char *text) {
    char *equals = strchr(text, '=');
    if (!equals) return unsetenv(text);
    char **e = find(text, (size_t)(equals - text));
    if (e) {
        *e = text;
        return 0;
    }
    size_t count = 0;
    while (environ && environ[count]) count++;
    char **grown = realloc(owned, (count + 2) * sizeof *grown);
    if (!grown) return -1;
    if (environ != owned && environ) memcpy(grown, environ, count * sizeof *grown);
    grown[count] = text;
    grown[count + 1] = NULL;
    environ = owned = grown;
    return 0;
}

int setenv(const char *name, const char *value, int overwrite) {
    if (!*name || strchr(name, '=')) {
        errno = EINVAL;
        return -1;
    }
    if (!overwrite && getenv(name)) return 0;
    char *text = malloc(strlen(name) + strlen(value) + 2);
    if (!text) return -1;
    strcpy(stpcpy(stpcpy(text, name), "="), value);
    return putenv(text);
}

int unsetenv(const char *name) {
    char **e;
    while ((e = find(name, strlen(name))))
        for (; *e; e++) e[0] = e[1];
    return 0;
}
