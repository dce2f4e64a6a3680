/* The first program. */
#include "exuvia.h"

int main(void) {
    puts("Hello from ring 3");
    return 0;
}
