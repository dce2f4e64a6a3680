/* Tries an instruction of ring 0. */
#include "exuvia.h"

int main(void) {
    puts("turning interrupts off");
    __asm__ volatile("cli");
    return 0;
}
