/* Numbers from text, random numbers. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

/* The magnitude, saturated at ULONG_MAX with *overflow set. */
static unsigned long magnitude(const char *s, char **end, int base, int *negative, int *overflow) {
    const char *start = s;
    while (isspace((unsigned char)*s)) s++;
    *negative = *s == '-';
    *overflow = 0;
    if (*s == '-' || *s == '+') s++;
    int is_hex = s[0] == '0' && (s[1] | 32) == 'x' && isxdigit((unsigned char)s[2]);
    if ((base == 0 || base == 16) && is_hex) s += 2, base = 16;
    if (base == 0) base = *s == '0' ? 8 : 10;
    unsigned long value = 0;
    int any = 0;
    for (;; s++, any = 1) {
        int digit = isdigit((unsigned char)*s) ? *s - '0' : isalpha((unsigned char)*s) ? (*s | 32) - 'a' + 10 : 99;
        if (digit >= base) break;
        if (__builtin_mul_overflow(value, (unsigned long)base, &value) ||
            __builtin_add_overflow(value, (unsigned long)digit, &value))
            *overflow = 1;
    }
    if (end) *end = (char *)(any ? s : start);
    if (*overflow) errno = ERANGE;
    return *overflow ? ULONG_MAX : value;
}

unsigned long strtoul(const char *s, char **end, int base) {
    int negative, overflow;
    unsigned long value = magnitude(s, end, base, &negative, &overflow);
    return negative && !overflow ? 0 - value : value;
}

long strtol(const char *s, char **end, int base) {
    int negative, overflow;
    unsigned long value = magnitude(s, end, base, &negative, &overflow);
    if (overflow || value > (unsigned long)LONG_MAX + negative) {
        errno = ERANGE;
        return negative ? LONG_MIN : LONG_MAX;
    }
    return (long)(negative ? 0 - value : value);
}

unsigned long long strtoull(const char *s, char **end, int base) { return strtoul(s, end, base); }
long long strtoll(const char *s, char **end, int base) { return strtol(s, end, base); }
int atoi(const char *s) { return (int)strtol(s, NULL, 10); }
long atol(const char *s) { return strtol(s, NULL, 10); }
int abs(int value) { return value < 0 ? -value : value; }
long labs(long value) { return value < 0 ? -value : value; }

static long double power_of_ten(int exponent) {
    long double result = 1, factor = 10;
    for (unsigned e = exponent < 0 ? 0U - (unsigned)exponent : (unsigned)exponent; e; e >>= 1, factor *= factor)
        if (e & 1) result *= factor;
    return exponent < 0 ? 1 / result : result;
}

/* Right but for the last bit in rare cases: computed in 64 bits of precision and rounded once more. */
double strtod(const char *s, char **end) {
    const char *start = s;
    while (isspace((unsigned char)*s)) s++;
    int negative = *s == '-', any = 0, exponent = 0;
    if (*s == '-' || *s == '+') s++;
    long double value = 0;
    for (; isdigit((unsigned char)*s); s++, any = 1) value = value * 10 + (*s - '0');
    if (*s == '.')
        for (s++; isdigit((unsigned char)*s); s++, any = 1, exponent--) value = value * 10 + (*s - '0');
    if (any && (*s | 32) == 'e') {
        char *after;
        long written = strtol(s + 1, &after, 10);
        if (after != s + 1 && !isspace((unsigned char)s[1])) {
            s = after;
            exponent += written > 5000 ? 5000 : written < -5000 ? -5000 : (int)written;
        }
    }
    if (end) *end = (char *)(any ? s : start);
    if (value != 0) value = exponent < 0 ? value / power_of_ten(-exponent) : value * power_of_ten(exponent);
    return (double)(negative ? -value : value);
}

double atof(const char *s) { return strtod(s, NULL); }

static uint64_t random_state = 1;

void srandom(unsigned long seed) { random_state = seed ? seed : 1; }
void srand(unsigned seed) { srandom(seed); }

/* Marsaglia's xorshift, the middle bits multiplied. */
long random(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (long)((random_state * 0x2545f4914f6cdd1dUL) >> 33);
}

int rand(void) { return (int)random(); }
