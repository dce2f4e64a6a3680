/* Divides by zero. */
#include "exuvia.h"

int main(void) {
    puts("dividing by zero");
    volatile int zero = 0;
    return 1000 / zero;
}
