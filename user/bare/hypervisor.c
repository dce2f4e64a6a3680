/*
 * A bare-metal hypervisor: multiboot, 32 to 64 bits, VMXON, EPT, VPID, and a 64-bit guest with page tables of its own.
 *
 * It knows nothing of the machine that runs it but what the Intel manual says, and discovers what there is. The guest asks for CPUID,
 * prints through port E9H and through VMCALL, touches guest-physical memory that is not there yet (an EPT violation gives it a page), reads
 * an MSR that the hypervisor makes up, is pre-empted by the VMX-preemption timer, takes an exception that the hypervisor injects, and halts.
 *
 * Exit status: 85 (42 << 1 | 1) when all went well.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define PAGE 4096UL
#define ALIGNED __attribute__((aligned(4096)))

__asm__(
    ".section .multiboot, \"a\"\n"
    ".balign 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".section .start, \"ax\"\n"
    ".code32\n"
    ".globl _start\n"
    "_start:\n"
    "  cli\n"
    "  mov $boot_stack + 16384, %esp\n"
    // Identity map of the first GiB: one PML4E, one PDPTE, 512 large pages.
    "  movl $boot_pdpt + 3, boot_pml4\n"
    "  movl $boot_pd + 3, boot_pdpt\n"
    "  mov $0x83, %eax\n"
    "  mov $boot_pd, %edi\n"
    "  mov $512, %ecx\n"
    "1: mov %eax, (%edi)\n"
    "  movl $0, 4(%edi)\n"
    "  add $0x200000, %eax\n"
    "  add $8, %edi\n"
    "  loop 1b\n"
    "  mov %cr4, %eax\n"
    "  or $0x20, %eax\n"
    "  mov %eax, %cr4\n"
    "  mov $boot_pml4, %eax\n"
    "  mov %eax, %cr3\n"
    "  mov $0xc0000080, %ecx\n"
    "  rdmsr\n"
    "  or $0x100, %eax\n"
    "  wrmsr\n"
    "  mov %cr0, %eax\n"
    "  or $0x80000021, %eax\n"
    "  mov %eax, %cr0\n"
    "  lgdt gdt_pointer\n"
    "  ljmp $8, $start64\n"
    ".code64\n"
    "start64:\n"
    "  mov $16, %eax\n"
    "  mov %eax, %ds\n"
    "  mov %eax, %es\n"
    "  mov %eax, %ss\n"
    "  xor %eax, %eax\n"
    "  mov %eax, %fs\n"
    "  mov %eax, %gs\n"
    "  call hypervisor\n"
    "2: hlt\n"
    "  jmp 2b\n"
    ".section .data\n"
    ".balign 16\n"
    ".globl gdt\n"
    "gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0\n"
    "gdt_pointer: .short 39\n"
    "  .long gdt, 0\n"
    ".section .text\n");

u64 boot_pml4[512] ALIGNED, boot_pdpt[512] ALIGNED, boot_pd[512] ALIGNED;
u8 boot_stack[16384] ALIGNED;
extern u64 gdt[5];
static u32 tss[26] ALIGNED;

/* ---- the processor's instructions */

static void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static u8 inb(u16 port) {
  u8 value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static u64 rdmsr(u32 msr) {
  u32 low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return (u64)high << 32 | low;
}
static void wrmsr(u32 msr, u64 value) { __asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32))); }
static void cpuid(u32 leaf, u32 *regs) {
  __asm__ volatile("cpuid" : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3]) : "a"(leaf), "c"(0));
}
#define READ_CR(n) ({ u64 v; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v)); v; })
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((u64)(v)) : "memory")

/* ---- console: the first serial port */

static void put(char c) {
  while ((inb(0x3fd) & 0x20) == 0) {
  }
  outb(0x3f8, (u8)c);
}
static void print(const char *s) {
  for (; *s != 0; s++) put(*s);
}
static void hex(u64 value) {
  int started = 0;
  for (int shift = 60; shift >= 0; shift -= 4) {
    int digit = (int)(value >> shift) & 15;
    if (digit != 0 || shift == 0) started = 1;
    if (started) put("0123456789abcdef"[digit]);
  }
}
static void say(const char *what, u64 value) {
  print(what);
  hex(value);
  print("\n");
}
__attribute__((noreturn)) static void quit(u8 code) {
  outb(0xf4, code);
  for (;;) __asm__ volatile("cli; hlt");
}
__attribute__((noreturn)) static void die(const char *what, u64 value) {
  say(what, value);
  quit(1);
}

/* ---- VMX */

enum {
  VPID = 0x0000, MSR_BITMAP = 0x2004, IO_BITMAP_A = 0x2000, IO_BITMAP_B = 0x2002, EPT_POINTER = 0x201a, GUEST_PHYSICAL = 0x2400,
  LINK_POINTER = 0x2800, GUEST_EFER = 0x2806, HOST_EFER = 0x2c02, PIN = 0x4000, PROC = 0x4002, EXCEPTIONS = 0x4004,
  EXIT_CONTROLS = 0x400c, ENTRY_CONTROLS = 0x4012, ENTRY_EVENT = 0x4016, ENTRY_LENGTH = 0x401a, PROC2 = 0x401e,
  INSTRUCTION_ERROR = 0x4400, EXIT_REASON = 0x4402, EXIT_LENGTH = 0x440c, TIMER = 0x482e, QUALIFICATION = 0x6400,
  CR0_MASK = 0x6000, CR4_MASK = 0x6002, CR0_SHADOW = 0x6004, CR4_SHADOW = 0x6006, GUEST_RSP = 0x681c, GUEST_RIP = 0x681e,
  HOST_RSP = 0x6c14, HOST_RIP = 0x6c16,
};

static u32 vmxon_region[1024] ALIGNED, vmcs_region[1024] ALIGNED;
static u8 msr_bitmap[PAGE] ALIGNED, io_bitmap_a[PAGE] ALIGNED, io_bitmap_b[PAGE] ALIGNED;
static u64 ept_pml4[512] ALIGNED, ept_pdpt[512] ALIGNED, ept_pd[512] ALIGNED, ept_far_pd[512] ALIGNED, ept_far_pt[512] ALIGNED;
static u8 pool[16][PAGE] ALIGNED;
static u32 pages_given;

static void vmwrite(u64 field, u64 value) {
  u8 failed;
  __asm__ volatile("vmwrite %2, %1; setna %0" : "=r"(failed) : "r"(field), "rm"(value) : "cc");
  if (failed) die("vmwrite failed, field ", field);
}
static u64 vmread(u64 field) {
  u64 value = 0;
  u8 failed;
  __asm__ volatile("vmread %2, %0; setna %1" : "=rm"(value), "=r"(failed) : "r"(field) : "cc");
  if (failed) die("vmread failed, field ", field);
  return value;
}
/* A control word: what is wanted, within what the capability MSR allows. */
static u32 control(u32 msr, u32 wanted) {
  u64 allowed = rdmsr(msr);
  u32 value = (wanted | (u32)allowed) & (u32)(allowed >> 32);
  if ((wanted & ~value) != 0) die("a control is not offered: ", wanted & ~value);
  return value;
}

/* Registers of the guest; the assembly below knows the order. */
struct registers {
  u64 rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
};
static struct registers regs;

/* Runs the guest until it exits. Returns 0, or the flags of a VMfail. */
u64 enter(struct registers *r, u64 resume);
__asm__(
    ".text\n"
    "enter:\n"
    "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "  push %rdi\n"
    "  mov $0x6c14, %eax\n"
    "  vmwrite %rsp, %rax\n"
    "  mov %rsi, %rax\n"
    "  test %rax, %rax\n"
    "  mov %rdi, %rax\n"
    "  mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rbp\n"
    "  mov 40(%rax), %rsi; mov 48(%rax), %rdi; mov 56(%rax), %r8; mov 64(%rax), %r9; mov 72(%rax), %r10\n"
    "  mov 80(%rax), %r11; mov 88(%rax), %r12; mov 96(%rax), %r13; mov 104(%rax), %r14; mov 112(%rax), %r15\n"
    "  mov (%rax), %rax\n"
    "  jnz 1f\n"
    "  vmlaunch\n"
    "  jmp 2f\n"
    "1: vmresume\n"
    "2: pushf\n"
    "  pop %rax\n"
    "  add $8, %rsp\n"
    "  jmp 3f\n"
    ".globl vm_exit\n"
    "vm_exit:\n"
    "  xchg %rax, (%rsp)\n"
    "  mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rbp, 32(%rax); mov %rsi, 40(%rax)\n"
    "  mov %rdi, 48(%rax); mov %r8, 56(%rax); mov %r9, 64(%rax); mov %r10, 72(%rax); mov %r11, 80(%rax)\n"
    "  mov %r12, 88(%rax); mov %r13, 96(%rax); mov %r14, 104(%rax); mov %r15, 112(%rax)\n"
    "  pop %rcx\n"
    "  mov %rcx, (%rax)\n"
    "  xor %eax, %eax\n"
    "3: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "  ret\n");
extern char vm_exit[], guest_start[], guest_handler[];

/* ---- the guest: 64-bit code with page tables of its own, where everything is mapped a second time 128 TiB up */

static u64 guest_pml4[512] ALIGNED, guest_pdpt[512] ALIGNED, guest_pd[512] ALIGNED, guest_far_pd[512] ALIGNED;
static u8 guest_stack[PAGE * 2] ALIGNED;
static u64 guest_idt[64] ALIGNED;
static volatile u64 guest_faults;

__asm__(
    ".text\n"
    "guest_start:\n"
    "  call guest\n"
    "1: hlt\n"
    "  jmp 1b\n"
    // #UD: counts, and goes on behind the UD2.
    "guest_handler:\n"
    "  incq guest_faults\n"
    "  addq $2, (%rsp)\n"
    "  iretq\n");

static void guest_print(const char *s) {
  for (; *s != 0; s++) outb(0xe9, (u8)*s);
}
static u64 hypercall(u64 number, u64 argument) {
  u64 result = number;
  __asm__ volatile("vmcall" : "+a"(result) : "b"(argument) : "memory");
  return result;
}
#define FAR 0xffff800000000000UL

void guest(void) {
  u32 r[4];
  guest_print("guest: hello from 64-bit code\n");
  cpuid(0x40000000, r);
  hypercall(1, r[1] == 0x56757845 && r[2] == 0x61696d69);
  /* Memory at 1 GiB is not there until it is touched. */
  volatile u64 *far = (volatile u64 *)(FAR + 0x40000000UL);
  for (u64 i = 0; i < 8; i++) far[i * 512] = i * 3 + 1;
  u64 sum = 0;
  for (u64 i = 0; i < 8; i++) sum += far[i * 512];
  hypercall(2, sum);
  hypercall(3, rdmsr(0x4b564d01));
  /* A translation that the guest changes itself: INVLPG, no exit. */
  guest_far_pd[1] = guest_far_pd[0];
  __asm__ volatile("invlpg (%0)" ::"r"(FAR + 0x40200000UL) : "memory");
  hypercall(4, *(volatile u64 *)(FAR + 0x40201000UL));
  __asm__ volatile("ud2");
  hypercall(5, guest_faults);
  for (volatile u64 i = 0; i < 20000; i++) {
  }
  guest_print("guest: done\n");
}

static void build_guest(void) {
  guest_pml4[0] = guest_pml4[256] = (u64)guest_pdpt | 3;
  guest_pdpt[0] = (u64)guest_pd | 3;
  guest_pdpt[1] = (u64)guest_far_pd | 3;
  for (u64 i = 0; i < 4; i++) guest_pd[i] = i << 21 | 0x83;
  guest_far_pd[0] = 0x40000000UL | 0x83;
  u64 handler = (u64)guest_handler;
  guest_idt[12] = (handler & 0xffff) | 8UL << 16 | 0x8eUL << 40 | (handler >> 16 & 0xffff) << 48;
  guest_idt[13] = handler >> 32;
}

/* Guest-physical 0 … 8 MiB is ours, one to one; what lies at 1 GiB is given page by page. */
static void build_ept(void) {
  ept_pml4[0] = (u64)ept_pdpt | 7;
  ept_pdpt[0] = (u64)ept_pd | 7;
  ept_pdpt[1] = (u64)ept_far_pd | 7;
  ept_far_pd[0] = (u64)ept_far_pt | 7;
  for (u64 i = 0; i < 4; i++) ept_pd[i] = i << 21 | 7 | 6 << 3 | 0x80;
}

static void segment(u32 index, u64 selector, u32 limit, u32 rights, u64 base) {
  vmwrite(0x0800 + index * 2, selector);
  vmwrite(0x4800 + index * 2, limit);
  vmwrite(0x4814 + index * 2, rights);
  vmwrite(0x6806 + index * 2, base);
}

static void build_vmcs(void) {
  u64 basic = rdmsr(0x480);
  u32 true_controls = basic >> 55 & 1 ? 0xc : 0;
  vmwrite(PIN, control(0x481 + true_controls, 1 << 6));
  vmwrite(PROC, control(0x482 + true_controls, 1 << 7 | 1U << 31 | 1 << 28 | 1 << 25));
  vmwrite(PROC2, control(0x48b, 1 << 1 | 1 << 5));
  vmwrite(EXIT_CONTROLS, control(0x483 + true_controls, 1 << 9 | 1 << 20 | 1 << 21));
  vmwrite(ENTRY_CONTROLS, control(0x484 + true_controls, 1 << 9 | 1 << 15));
  vmwrite(VPID, 1);
  vmwrite(EPT_POINTER, (u64)ept_pml4 | 6 | 3 << 3);
  vmwrite(LINK_POINTER, ~0UL);
  vmwrite(MSR_BITMAP, (u64)msr_bitmap);
  vmwrite(IO_BITMAP_A, (u64)io_bitmap_a);
  vmwrite(IO_BITMAP_B, (u64)io_bitmap_b);
  for (u32 i = 0; i < PAGE; i++) io_bitmap_a[i] = io_bitmap_b[i] = 0xff;
  vmwrite(EXCEPTIONS, 1 << 6);
  vmwrite(TIMER, 100);

  u64 cr0 = READ_CR(0), cr4 = READ_CR(4), efer = rdmsr(0xc0000080);
  for (u32 who = 0; who < 2; who++) {
    u64 area = who == 0 ? 0x6800 : 0x6c00;
    vmwrite(area, cr0);
    vmwrite(area + 2, who == 0 ? (u64)guest_pml4 : READ_CR(3));
    vmwrite(area + 4, cr4);
    vmwrite(who == 0 ? GUEST_EFER : HOST_EFER, efer);
  }
  vmwrite(CR4_MASK, 1 << 13);
  vmwrite(CR4_SHADOW, cr4 & ~(1UL << 13));
  segment(0, 16, ~0U, 0xc093, 0);
  segment(1, 8, ~0U, 0xa09b, 0);
  segment(2, 16, ~0U, 0xc093, 0);
  segment(3, 16, ~0U, 0xc093, 0);
  segment(4, 0, 0, 1 << 16, 0);
  segment(5, 0, 0, 1 << 16, 0);
  segment(6, 0, 0, 1 << 16, 0);
  segment(7, 24, 0x67, 0x8b, (u64)tss);
  vmwrite(0x4810, 39);
  vmwrite(0x6816, (u64)gdt);
  vmwrite(0x4812, sizeof guest_idt - 1);
  vmwrite(0x6818, (u64)guest_idt);
  vmwrite(GUEST_RSP, (u64)guest_stack + sizeof guest_stack);
  vmwrite(GUEST_RIP, (u64)guest_start);
  vmwrite(0x6820, 2);
  vmwrite(0x681a, 0x400);

  for (u32 field = 0xc00; field <= 0xc0a; field += 2) vmwrite(field, field == 0xc02 ? 8 : field > 0xc06 ? 0 : 16);
  vmwrite(0xc0c, 24);
  vmwrite(0x6c0a, (u64)tss);
  vmwrite(0x6c0c, (u64)gdt);
  vmwrite(HOST_RIP, (u64)vm_exit);
}

static u32 timer_exits, violations, line_start = 1;

static void skip(void) { vmwrite(GUEST_RIP, vmread(GUEST_RIP) + vmread(EXIT_LENGTH)); }

/* The guest's EPT violation at 1 GiB gives it a page. */
static void give_page(void) {
  u64 at = vmread(GUEST_PHYSICAL), page = (at - 0x40000000UL) / PAGE;
  if (at < 0x40000000UL || page >= 512 || pages_given == 16) die("EPT violation at ", at);
  if ((vmread(QUALIFICATION) & 0x38) != 0) die("EPT violation of a page that is there: ", at);
  ept_far_pt[page] = (u64)pool[pages_given++] | 7 | 6 << 3;
  violations++;
}

static void hypercalled(void) {
  static const u64 expected[] = {0, 1, 92, 0x1234567890, 4, 1};
  if (regs.rax == 0 || regs.rax > 5) die("unknown hypercall ", regs.rax);
  if (regs.rbx != expected[regs.rax]) {
    say("hypercall ", regs.rax);
    die("wrong: ", regs.rbx);
  }
  regs.rax = 0;
  skip();
}

/* Carries out the guest's exit; 0 when it halted. */
static int handle(void) {
  u64 reason = vmread(EXIT_REASON);
  switch (reason) {
    case 0: /* #UD: back to the guest, as if there were no hypervisor */
      vmwrite(ENTRY_EVENT, 1U << 31 | 3 << 8 | 6);
      return 1;
    case 10: {
      u32 r[4];
      if ((u32)regs.rax == 0x40000000) {
        r[0] = 0x40000000;
        r[1] = 0x56757845;
        r[2] = 0x61696d69;
        r[3] = 0x7265646e;
      } else cpuid((u32)regs.rax, r);
      regs.rax = r[0];
      regs.rbx = r[1];
      regs.rcx = r[2];
      regs.rdx = r[3];
      skip();
      return 1;
    }
    case 12:
      return 0;
    case 18:
      hypercalled();
      return 1;
    case 30: {
      u64 q = vmread(QUALIFICATION);
      if ((q >> 16) != 0xe9 || (q & 8) != 0) die("I/O: ", q);
      if (line_start) print("| ");
      put((char)regs.rax);
      line_start = (char)regs.rax == '\n';
      skip();
      return 1;
    }
    case 31:
      if ((u32)regs.rcx != 0x4b564d01) die("RDMSR ", regs.rcx);
      regs.rax = 0x34567890;
      regs.rdx = 0x12;
      skip();
      return 1;
    case 48:
      give_page();
      return 1;
    case 52:
      timer_exits++;
      vmwrite(TIMER, 100);
      return 1;
    default:
      say("exit reason ", reason);
      say("qualification ", vmread(QUALIFICATION));
      die("guest RIP ", vmread(GUEST_RIP));
  }
}

void hypervisor(void) {
  u32 r[4];
  cpuid(1, r);
  if ((r[2] & 1 << 5) == 0) die("no VMX", 0);
  if ((rdmsr(0x3a) & 1) == 0) wrmsr(0x3a, 5);
  if ((rdmsr(0x3a) & 5) != 5) die("VMX is locked out: ", rdmsr(0x3a));
  gdt[3] = 0x67 | ((u64)tss & 0xffffff) << 16 | 0x89UL << 40 | ((u64)tss >> 24 & 0xff) << 56;
  gdt[4] = (u64)tss >> 32;
  __asm__ volatile("ltr %w0" ::"r"(24));
  WRITE_CR(0, (READ_CR(0) | rdmsr(0x486)) & rdmsr(0x487));
  WRITE_CR(4, (READ_CR(4) | rdmsr(0x488)) & rdmsr(0x489));
  vmxon_region[0] = vmcs_region[0] = (u32)rdmsr(0x480) & 0x7fffffff;
  u64 vmxon_at = (u64)vmxon_region, vmcs_at = (u64)vmcs_region;
  u8 failed;
  __asm__ volatile("vmxon %1; setna %0" : "=r"(failed) : "m"(vmxon_at) : "cc", "memory");
  if (failed) die("VMXON failed", 0);
  say("VMX root operation, revision ", vmxon_region[0]);
  __asm__ volatile("vmclear %1; setna %0" : "=r"(failed) : "m"(vmcs_at) : "cc", "memory");
  if (failed) die("VMCLEAR failed", 0);
  __asm__ volatile("vmptrld %1; setna %0" : "=r"(failed) : "m"(vmcs_at) : "cc", "memory");
  if (failed) die("VMPTRLD failed", 0);
  build_ept();
  build_guest();
  build_vmcs();
  u64 exits = 0;
  do {
    if (enter(&regs, exits != 0) != 0) die("VM entry failed, error ", vmread(INSTRUCTION_ERROR));
    exits++;
  } while (handle());
  print("the guest has halted\n");
  say("EPT violations ", violations);
  say("timer exits: some ", timer_exits > 0);
  __asm__ volatile("vmxoff");
  quit(42);
}
