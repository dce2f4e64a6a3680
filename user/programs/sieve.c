/* Primes below 100000: a loop that takes a while. */
#include "exuvia.h"

enum { LIMIT = 100000 };
static unsigned char composite[LIMIT];

int main(void) {
    int count = 0;
    for (int i = 2; i < LIMIT; i++) {
        if (composite[i]) continue;
        count++;
        for (int j = 2 * i; j < LIMIT; j += i) composite[j] = 1;
    }
    printf("%d primes below %d\n", count, LIMIT);
    return count == 9592 ? 0 : 1;
}
