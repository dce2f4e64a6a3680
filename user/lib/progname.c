/* The program's name, for messages. */
#include <err.h>
#include <string.h>

static const char *program = "?";

const char *getprogname(void) { return program; }

void setprogname(const char *name) {
    const char *slash = strrchr(name, '/');
    program = slash ? slash + 1 : name;
}
