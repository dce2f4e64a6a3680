/* Runs code on its stack, which is mapped no-execute. */
#include "exuvia.h"

int main(void) {
    volatile unsigned char code[] = {0xc3};
    puts("calling the stack");
    ((void (*)(void))(void *)code)();
    return code[0];
}
