/* Reads through a null pointer. */
#include "exuvia.h"

int main(void) {
    puts("reading address 0");
    int *volatile pointer = NULL;
    return *pointer;
}
