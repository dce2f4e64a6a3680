/*
 * The decimal digits of a double, exactly: the value is held as an integer of base 1,000,000,000 with a fraction behind,
 * and rounded half to even at the digit that is asked for.
 */
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include "libc.h"

enum { BASE = 1000000000, WHOLE = 36, PARTS = WHOLE + 124 };

/* parts[0, WHOLE) before the point, the rest behind it; most significant first. */
struct decimal {
    uint32_t parts[PARTS];
};

static void double_it(struct decimal *d) {
    uint32_t carry = 0;
    for (int i = PARTS - 1; i >= 0; i--) {
        uint32_t value = d->parts[i] * 2 + carry;
        carry = value >= BASE;
        d->parts[i] = carry ? value - BASE : value;
    }
}

static void halve_it(struct decimal *d) {
    uint32_t rest = 0;
    for (int i = 0; i < PARTS; i++) {
        uint32_t odd = d->parts[i] & 1;
        d->parts[i] = d->parts[i] / 2 + rest * (BASE / 2);
        rest = odd;
    }
}

/* The digit of weight 10^exponent. */
static int digit(const struct decimal *d, int exponent) {
    static const uint32_t POWERS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    int from_top = WHOLE * 9 - 1 - exponent;
    if (from_top < 0 || from_top >= PARTS * 9) return 0;
    return (int)(d->parts[from_top / 9] / POWERS[8 - from_top % 9] % 10);
}

static void add(struct decimal *d, int exponent) {
    static const uint32_t POWERS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    int from_top = WHOLE * 9 - 1 - exponent, i = from_top / 9;
    d->parts[i] += POWERS[8 - from_top % 9];
    for (; i > 0 && d->parts[i] >= BASE; i--) {
        d->parts[i] -= BASE;
        d->parts[i - 1]++;
    }
}

/* Rounds to a multiple of 10^exponent; the digits below are left as they are and not to be read. */
static void round_at(struct decimal *d, int exponent) {
    int below = digit(d, exponent - 1), rest = 0;
    int from_top = WHOLE * 9 - exponent + 1;
    for (int e = exponent - 2; e >= exponent - 20; e--) rest |= digit(d, e);
    for (int i = from_top / 9 + 1; i < PARTS && !rest; i++) rest |= d->parts[i] != 0;
    if (below > 5 || (below == 5 && (rest || (digit(d, exponent) & 1)))) add(d, exponent);
}

static int highest(const struct decimal *d) {
    for (int i = 0; i < PARTS; i++)
        if (d->parts[i])
            for (int e = (WHOLE - 1 - i) * 9 + 8;; e--)
                if (digit(d, e)) return e;
    return 0;
}

static void load(struct decimal *d, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t fraction = bits & 0xfffffffffffffUL;
    if (exponent) fraction |= 1UL << 52;
    else exponent = 1;
    memset(d, 0, sizeof *d);
    d->parts[WHOLE - 1] = (uint32_t)(fraction % BASE);
    d->parts[WHOLE - 2] = (uint32_t)(fraction / BASE);
    for (exponent -= 1075; exponent > 0; exponent--) double_it(d);
    for (; exponent < 0; exponent++) halve_it(d);
}

static int fixed(char *to, struct decimal *d, int precision, int point) {
    int n = 0;
    round_at(d, -precision);
    int top = highest(d);
    for (int e = top > 0 ? top : 0; e >= -precision; e--) {
        if (e == -1) to[n++] = '.';
        to[n++] = (char)('0' + digit(d, e));
    }
    if (precision == 0 && point) to[n++] = '.';
    return n;
}

static int scientific(char *to, size_t size, struct decimal *d, int precision, int point, char e_letter) {
    int top = highest(d), n = 0;
    round_at(d, top - precision);
    top = digit(d, top + 1) ? top + 1 : top;
    for (int e = top; e >= top - precision; e--) {
        to[n++] = (char)('0' + digit(d, e));
        if (e == top && (precision > 0 || point)) to[n++] = '.';
    }
    return n + snprintf(to + n, size - (size_t)n, "%c%c%02d", e_letter, top < 0 ? '-' : '+', top < 0 ? -top : top);
}

static int strip(char *to, int n) {
    int end = n, exponent = 0;
    while (exponent < n && (to[exponent] | 32) != 'e') exponent++;
    if (!memchr(to, '.', (size_t)exponent)) return n;
    end = exponent;
    while (to[end - 1] == '0') end--;
    if (to[end - 1] == '.') end--;
    memmove(to + end, to + exponent, (size_t)(n - exponent));
    return end + n - exponent;
}

int __format_double(char *to, size_t size, double value, char conversion, int precision, int alternate) {
    int upper = conversion < 'a';
    if (__builtin_isnan(value) || __builtin_isinf(value)) {
        memcpy(to, __builtin_isnan(value) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf", 3);
        return 3;
    }
    struct decimal d;
    load(&d, value);
    char e_letter = upper ? 'E' : 'e';
    switch (conversion | 32) {
    case 'f': return fixed(to, &d, precision, alternate);
    case 'e': return scientific(to, size, &d, precision, alternate, e_letter);
    }
    if (precision == 0) precision = 1;
    struct decimal rounded = d;
    int top = highest(&d);
    round_at(&rounded, top - precision + 1);
    if (digit(&rounded, top + 1)) top++;
    int n = top < -4 || top >= precision ? scientific(to, size, &d, precision - 1, alternate, e_letter)
                                         : fixed(to, &d, precision - 1 - top, alternate);
    return alternate ? n : strip(to, n);
}
