/* Jumps to where nothing is. */
#include "exuvia.h"

int main(void) {
    puts("calling 0xdead0000");
    void (*volatile nowhere)(void) = (void (*)(void))0xdead0000;
    nowhere();
    return 0;
}
