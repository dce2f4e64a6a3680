/* The bench programs, for 64-bit mode and (with -m32) for protected mode with 32-bit paging: u64 is the machine word, of 32 bits there,
   and check values differ. One image; the program and its number of rounds are the last two words of the command line ("sieve 40").
   The work is proportional to the rounds; what comes before them is done with 0 rounds too. It prints a check value and ends
   through the debug-exit port (or Bochs' shutdown port). No library. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* The root of the page tables: the PML4 table, with 32-bit paging the page directory. */
extern u64 pml4[];
extern unsigned long long gdt[];
extern u8 tss[];
extern u64 *pf_pte;
extern u64 pf_value;
u64 int80_loop(u64 n);
void isr80(void), isr_pf(void), isr81(void), syscall_entry(void), user_loop(void);
u64 pf_loop(u64 n, volatile u64 *va, u64 *pte);
#define BITS (8 * (int)sizeof(u64))
#define IS64 (BITS == 64)
u64 enter_user(void (*rip)(void), void *rsp, u64 n);
u64 smc_loop(u64 n, u8 *code);
u64 cr3_loop(u64 n, u64 a, u64 b, u8 *data);
u64 gate_loop(u64 n);
void rep_loop(u64 n, void *dst, void *src, u64 bytes);

static inline void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
#ifdef __x86_64__
static inline void wrmsr(u32 n, u64 v) { __asm__ volatile("wrmsr" ::"c"(n), "a"((u32)v), "d"((u32)(v >> 32))); }
#endif

static void putc(char c) {
  while (!(inb(0x3fd) & 0x20)) {}
  outb(0x3f8, c);
}
static void puts(const char *s) { while (*s) putc(*s++); }
static void puthex(u64 v) { for (int i = 60; i >= 0; i -= 4) putc("0123456789abcdef"[i < BITS ? (v >> (i % BITS)) & 15 : 0]); }
static void leave(u8 code) {
  while (!(inb(0x3fd) & 0x40)) {} /* the last byte has left the wire */
  outb(0xf4, code);
  for (const char *s = "Shutdown"; *s; s++) outb(0x8900, *s);
  for (;;) __asm__ volatile("cli; hlt");
}

/* 64 MiB of memory at 32 MiB that no loader has to clear; what it holds at the start is not relied on. */
#define area ((u8 *)(32ul << 20))
static u64 tables[16 * 512] __attribute__((aligned(4096)));
static struct {
  u16 low, sel, attr, mid;
#ifdef __x86_64__
  u32 high, zero;
#endif
} idt[256] __attribute__((aligned(16)));

static void gate(int n, void (*f)(void), int dpl) {
  u64 a = (u64)f;
  idt[n].low = a; idt[n].sel = 8; idt[n].attr = 0x8e00 | (dpl << 13); idt[n].mid = a >> 16;
#ifdef __x86_64__
  idt[n].high = a >> 32;
#endif
}

#define NOINLINE __attribute__((noinline))

static NOINLINE u64 alu(u64 n) {
  u64 a = 1, b = 2, c = 3, d = 4;
  for (u64 i = 0; i < n * 10000; i++) {
    a += b; b ^= c; c = (c << 5) | (c >> (BITS - 5)); d -= a; a ^= d + i; __asm__ volatile("" : "+r"(a), "+r"(b));
  }
  return a ^ b ^ c ^ d;
}
static NOINLINE u64 collatz(u64 n) {
  u64 steps = 0;
  for (u64 r = 0; r < n; r++)
    for (u64 i = 1; i < 1000; i++)
      for (u64 x = i; x != 1; steps++) x = x & 1 ? 3 * x + 1 : x >> 1;
  return steps;
}
static NOINLINE u64 sieve(u64 n) {
  enum { N = 100000 };
  u64 count = 0;
  for (u64 r = 0; r < n; r++) {
    for (int i = 0; i < N; i++) area[i] = 1;
    for (int i = 2; i < N; i++)
      if (area[i]) { count++; for (int j = 2 * i; j < N; j += i) area[j] = 0; }
  }
  return count;
}
static const u32 K[64] = {
  0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,0x243185be,0x550c7dc3,
  0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,
  0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,0x06ca6351,0x14292967,0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,
  0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,
  0x19a4c116,0x1e376c08,0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,
  0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};
#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
static void sha_block(u32 *h, const u8 *p) {
  u32 w[64];
  for (int i = 0; i < 16; i++) w[i] = p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    u32 x = w[i - 15], y = w[i - 2];
    w[i] = w[i - 16] + (ROR(x, 7) ^ ROR(x, 18) ^ x >> 3) + w[i - 7] + (ROR(y, 17) ^ ROR(y, 19) ^ y >> 10);
  }
  u32 a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
  for (int i = 0; i < 64; i++) {
    u32 t = k + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
    u32 s = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    k = g; g = f; f = e; e = d + t; d = c; c = b; b = a; a = t + s;
  }
  h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += k;
}
static NOINLINE u64 sha(u64 n) {
  u32 h[8] = {0x6a09e667,0xbb67ae85,0x3c6ef372,0xa54ff53a,0x510e527f,0x9b05688c,0x1f83d9ab,0x5be0cd19};
  for (int i = 0; i < 4096; i++) area[i] = i * 7;
  for (u64 i = 0; i < n * 10; i++) sha_block(h, area + (i & 63) * 64);
  return IS64 ? (u64)h[0] << (BITS - 32) | h[1] : h[0] ^ h[1];
}
static NOINLINE u64 fib1(u64 n) { return n < 2 ? n : fib1(n - 1) + fib1(n - 2); }
static NOINLINE u64 fib(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s += fib1(20); return s; }
static NOINLINE u64 interp(u64 n) {
  /* a counting loop in a small byte code: 0 end, 1 add, 2 xor, 3 dec, 4 jnz, 5 push, 6 rot */
  static const u8 code[] = {5, 1, 2, 6, 1, 2, 6, 2, 3, 4, 0};
  u64 a = 1, b = 3, acc = 0;
  u64 count = n * 1000;
  if (!count) return 0;
  for (u64 pc = 0;;) {
    switch (code[pc++]) {
      case 0: return a ^ b ^ acc;
      case 1: a += b; break;
      case 2: b ^= a; break;
      case 3: count--; break;
      case 4: if (count) pc = 0; break;
      case 5: acc += a; break;
      case 6: a = a << 7 | a >> (BITS - 7); break;
    }
  }
}
/* Fills the 64 KiB that copy and repmovs read; sums up the 64 KiB that they write. */
static void pattern(void) {
  u64 *s = (u64 *)(area + (1 << 20));
  for (u64 i = 0; i < 65536 / sizeof(u64); i++) s[i] = i * (u64)0x9e3779b97f4a7c15;
}
static u64 sum(void) {
  u64 *d = (u64 *)area, total = 0;
  for (u64 i = 0; i < 65536 / sizeof(u64); i++) total = total * 31 + d[i];
  return total;
}
static NOINLINE u64 copy(u64 n) {
  volatile u64 *d = (u64 *)area, *s = (u64 *)(area + (1 << 20));
  pattern();
  for (u64 r = 0; r < n; r++) for (int i = 0; i < 65536 / (int)sizeof(u64); i++) d[i] = s[i];
  return sum();
}
static NOINLINE u64 chase(u64 n, u64 bytes) {
  u64 slots = bytes / 64, x = 0;
  for (u64 i = 0; i < slots; i++) *(u64 *)(area + i * 64) = ((i * 40503 + 7) & (slots - 1)) * 64;
  for (u64 i = 0; i < n * 10000; i++) x = *(volatile u64 *)(area + x);
  return x;
}
static NOINLINE u64 repmovs(u64 n) {
  pattern();
  if (n) rep_loop(n, area, area + (1 << 20), 65536);
  return sum();
}
/* Maps the beginning of `area` once more with 4-KiB pages, at 512 GiB (with 32-bit paging at 2 GiB), for the programs that need small pages.
   The first entry of `tables + 1024` maps its first page. */
static u8 *small_pages(void) {
#ifdef __x86_64__
  u64 *pdpt = tables, *pd = tables + 512;
  pml4[1] = (u64)pdpt | 3;
  pdpt[0] = (u64)pd | 3;
  for (int t = 0; t < 8; t++) {
    u64 *pt = tables + (2 + t) * 512;
    pd[t] = (u64)pt | 3;
    for (int i = 0; i < 512; i++) pt[i] = (u64)(area + t * (2 << 20) + i * 4096) | 3;
  }
  u8 *va = (u8 *)(512ul << 30);
#else
  u64 *pt = tables + 1024;
  pml4[512] = (u64)pt | 3;
  for (int i = 0; i < 1024; i++) pt[i] = (u64)(area + i * 4096) | 3;
  u8 *va = (u8 *)(2ul << 30);
#endif
  __asm__ volatile("mov %0, %%cr3" ::"r"((u64)pml4) : "memory");
  return va;
}
static NOINLINE u64 pagefault(u64 n) {
  u8 *va = small_pages();
  pf_pte = tables + 2 * 512;
  pf_value = *pf_pte;
  *pf_pte = 0;
  __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
  *(u64 *)area = 3;
  return n ? pf_loop(n * 100, (u64 *)va, pf_pte) : 0;
}
#ifdef __x86_64__
static NOINLINE u64 syscalls(u64 n) {
  static u8 user_stack[4096] __attribute__((aligned(16)));
  /* everything is user-accessible for this one */
  pml4[0] |= 4;
  u64 *pdpt = (u64 *)(pml4[0] & ~0xffful);
  for (int i = 0; i < 4; i++) {
    pdpt[i] |= 4;
    u64 *pd = (u64 *)(pdpt[i] & ~0xffful);
    for (int j = 0; j < 512; j++) pd[j] |= 4;
  }
  __asm__ volatile("mov %0, %%cr3" ::"r"((u64)pml4) : "memory");
  wrmsr(0xC0000081, (u64)0x001b0008 << 32);
  wrmsr(0xC0000082, (u64)syscall_entry);
  wrmsr(0xC0000084, 0x200);
  return n ? enter_user(user_loop, user_stack + 4096, n * 100) : 0;
}
#endif
static NOINLINE u64 cr3(u64 n) {
  u8 *va = small_pages();
  static u64 other[4096 / sizeof(u64)] __attribute__((aligned(4096)));
  for (int i = 0; i < 4096 / (int)sizeof(u64); i++) other[i] = pml4[i];
  for (int i = 0; i < 4; i++) *(u64 *)(area + i * 4096) = i + 1;
  return n ? cr3_loop(n * 100, (u64)pml4, (u64)other, va) : 0;
}

static int equal(const char *a, const char *b) { while (*b) if (*a++ != *b++) return 0; return *a == ' ' || !*a; }

/* `entry`: EBP held EAX at the start (the magic), passed in edi; ESI the information structure. */
void bench_main(u64 magic, u32 *info) {
  (void)magic;
  outb(0x3f9, 0); outb(0x3fb, 3);
  const char *line = (info[0] & 4) ? (const char *)(u64)info[4] : "";
  /* the last two words */
  const char *p = "", *q = "";
  for (const char *c = line; *c;) {
    while (*c == ' ') c++;
    if (!*c) break;
    p = q; q = c;
    while (*c && *c != ' ') c++;
  }
  u64 n = 0;
  while (*q >= '0' && *q <= '9') n = n * 10 + (*q++ - '0');

  gate(0x80, isr80, 3);
#ifdef __x86_64__
  gate(0x81, isr81, 3);
#endif
  gate(14, isr_pf, 0);
  struct { u16 limit; u64 base; } __attribute__((packed)) idtr = {sizeof idt - 1, (u64)idt};
  __asm__ volatile("lidt %0" ::"m"(idtr));
#ifdef __x86_64__
  u64 t = (u64)tss;
  gdt[6] = 0x67 | (t & 0xffffff) << 16 | 0x89ul << 40 | (t >> 24 & 0xff) << 56;
  gdt[7] = t >> 32;
  static u8 rsp0[8192] __attribute__((aligned(16)));
  *(u64 *)(tss + 4) = (u64)(rsp0 + sizeof rsp0);
  __asm__ volatile("ltr %w0" ::"r"(0x30));
#endif

  u64 result = 0;
  if (equal(p, "alu")) result = alu(n);
  else if (equal(p, "collatz")) result = collatz(n);
  else if (equal(p, "sieve")) result = sieve(n);
  else if (equal(p, "sha")) result = sha(n);
  else if (equal(p, "fib")) result = fib(n);
  else if (equal(p, "interp")) result = interp(n);
  else if (equal(p, "copy")) result = copy(n);
  else if (equal(p, "repmovs")) result = repmovs(n);
  else if (equal(p, "chase1m")) result = chase(n, 1 << 20);
  else if (equal(p, "chase64m")) result = chase(n, 64 << 20);
  else if (equal(p, "pagefault")) result = pagefault(n);
  else if (equal(p, "int80")) { if (n) result = int80_loop(n * 100); }
#ifdef __x86_64__
  else if (equal(p, "syscall")) result = syscalls(n);
#endif
  else if (equal(p, "cr3")) result = cr3(n);
  else if (equal(p, "smc")) { if (n) result = smc_loop(n * 100, area); }
#ifdef __x86_64__
  else if (equal(p, "gates")) { if (n) result = gate_loop(n * 100); }
#endif
  else { puts("unknown program\n"); leave(1); }
  puts("check "); puthex(result); puts("\n");
  leave(0);
}
