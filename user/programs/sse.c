/* SSE2 and x87: sums whose results are known beforehand. */
#include "exuvia.h"

static double square_root(double x) {
    double result;
    __asm__("sqrtsd %1, %0" : "=x"(result) : "x"(x));
    return result;
}

static long bits(double x) {
    long result;
    memcpy(&result, &x, sizeof result);
    return result;
}

int main(void) {
    int wrong = 0;
    double sum = 0;
    for (int i = 1; i <= 1000; i++) sum += 1.0 / i;
    printf("harmonic(1000)  %016lx\n", (unsigned long)bits(sum));
    wrong += bits(sum) != 0x401df11f45f4e618;

    double root = square_root(2.0);
    printf("sqrt(2)         %016lx\n", (unsigned long)bits(root));
    wrong += bits(root) != 0x3ff6a09e667f3bcd;

    /* 80 bits matter: in double precision the difference is 0. */
    volatile long double one = 1.0L, tiny = 0x1p-60L;
    long difference = (long)((one + tiny - one) * 0x1p60L);
    printf("(1 + 2^-60) - 1 = %ld * 2^-60\n", difference);
    wrong += difference != 1;

    float lanes[4] = {1, 2, 3, 4}, doubled[4];
    __asm__ volatile("movups %1, %%xmm1\n\taddps %%xmm1, %%xmm1\n\tmovups %%xmm1, %0"
                     : "=m"(doubled) : "m"(lanes) : "xmm1");
    printf("addps           %d %d %d %d\n", (int)doubled[0], (int)doubled[1], (int)doubled[2], (int)doubled[3]);
    wrong += doubled[0] != 2 || doubled[3] != 8;

    puts(wrong ? "wrong" : "right");
    return wrong;
}
