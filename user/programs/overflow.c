/* Recurses until its stack ends. */
#include "exuvia.h"

static int depth(int n) {
    volatile char frame[256];
    frame[0] = (char)n;
    return n < 0 ? frame[0] : depth(n + 1) + frame[0];
}

int main(void) {
    puts("recursing");
    return depth(0);
}
