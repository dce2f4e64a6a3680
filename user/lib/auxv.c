/* The auxiliary vector: pairs of type and value behind the environment, ended by type 0. */
#include "libc.h"

static unsigned long *vector;

void __start_auxv(unsigned long *auxv) { vector = auxv; }

unsigned long getauxval(unsigned long type) {
    /* Bounded: a kernel that gives no vector must not lead us off the stack. */
    for (int i = 0; vector && i < 64 && vector[2 * i]; i++)
        if (vector[2 * i] == type) return vector[2 * i + 1];
    return 0;
}
