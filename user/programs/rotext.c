/* Writes into its own code, which is mapped without write permission. */
#include "exuvia.h"

int main(void) {
    puts("writing to main()");
    *(volatile char *)(void *)main = 0x90;
    return 0;
}
