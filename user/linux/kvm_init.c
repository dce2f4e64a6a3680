/*
 * The first and only program of a Linux system: loads the KVM modules and runs a virtual machine with /dev/kvm, as any monitor would.
 *
 * So Linux's own hypervisor, which knows nothing of us, is the test: its guest is 16-bit code that prints through a port, asks for CPUID,
 * counts down and halts. Says "kvm: ok" when the guest did what it should, and switches the machine off.
 */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

static long system_call(long n, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

enum { WRITE = 1, OPEN = 2, CLOSE = 3, MMAP = 9, IOCTL = 16, MKNOD = 133, SYNC = 162, REBOOT = 169, FINIT_MODULE = 313 };
enum {
  KVM_CREATE_VM = 0xae01, KVM_GET_VCPU_MMAP_SIZE = 0xae04, KVM_CREATE_VCPU = 0xae41, KVM_SET_TSS_ADDR = 0xae47, KVM_RUN = 0xae80,
};
#define KVM_SET_USER_MEMORY_REGION 0x4020ae46
#define KVM_SET_REGS 0x4090ae82
#define KVM_GET_SREGS 0x8138ae83
#define KVM_SET_SREGS 0x4138ae84
enum { EXIT_IO = 2, EXIT_HLT = 5 };

static void print(const char *s) {
  long n = 0;
  while (s[n] != 0) n++;
  system_call(WRITE, 1, (long)s, n, 0, 0, 0);
}
static void say(const char *what, long value) {
  char text[24];
  int i = 23;
  u64 left = value < 0 ? -(u64)value : (u64)value;
  text[i] = 0;
  text[--i] = '\n';
  do text[--i] = (char)('0' + left % 10);
  while ((left /= 10) != 0);
  if (value < 0) text[--i] = '-';
  print(what);
  print(text + i);
}
__attribute__((noreturn)) static void off(void) {
  system_call(SYNC, 0, 0, 0, 0, 0, 0);
  system_call(REBOOT, 0xfee1dead, 672274793, 0x4321fedc, 0, 0, 0);
  for (;;) {
  }
}
/* The result of a system call that must not fail. */
static long must(const char *what, long result) {
  if (result < 0) {
    say(what, result);
    off();
  }
  return result;
}
static long control(long file, u64 request, long argument) { return system_call(IOCTL, file, (long)request, argument, 0, 0, 0); }

static void load(const char *module) {
  long file = must(module, system_call(OPEN, (long)module, 0, 0, 0, 0, 0));
  must(module, system_call(FINIT_MODULE, file, (long)"", 0, 0, 0, 0));
  system_call(CLOSE, file, 0, 0, 0, 0, 0);
}

struct region {
  u32 slot, flags;
  u64 guest, bytes, host;
};
struct registers {
  u64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
};

/* mov dx, 3f8h; "hi" through the port; cpuid; newline; count down from 4096; hlt */
static const u8 code[] = {0xba, 0xf8, 0x03, 0xb0, 'h',  0xee, 0xb0, 'i',  0xee, 0x66, 0x31, 0xc0,
                          0x0f, 0xa2, 0xba, 0xf8, 0x03, 0xb0, '\n', 0xee, 0xb9, 0x00, 0x10, 0xe2, 0xfe, 0xf4};

static void run(long cpu, const u8 *shared) {
  char said[8];
  u32 n = 0;
  for (;;) {
    must("KVM_RUN ", control(cpu, KVM_RUN, 0));
    u32 reason = *(const u32 *)(shared + 8);
    if (reason == EXIT_IO && n < 8) said[n++] = *(const char *)(shared + *(const u64 *)(shared + 40));
    else if (reason == EXIT_HLT) break;
    else {
      say("kvm: exit ", reason);
      return;
    }
  }
  print(n == 3 && said[0] == 'h' && said[1] == 'i' && said[2] == '\n' ? "kvm: ok\n" : "kvm: wrong output\n");
}

void begin(void) {
  static u8 segments[312];
  static struct registers registers;
  load("/irqbypass.ko");
  load("/kvm.ko");
  load("/kvm-intel.ko");
  system_call(MKNOD, (long)"/dev/kvm", 0020600, 10 << 8 | 232, 0, 0, 0);
  long kvm = must("open /dev/kvm ", system_call(OPEN, (long)"/dev/kvm", 2, 0, 0, 0, 0));
  long vm = must("KVM_CREATE_VM ", control(kvm, KVM_CREATE_VM, 0));
  must("KVM_SET_TSS_ADDR ", control(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
  u8 *memory = (u8 *)must("mmap ", system_call(MMAP, 0, 0x10000, 3, 0x21, -1, 0));
  for (u32 i = 0; i < sizeof code; i++) memory[0x1000 + i] = code[i];
  struct region region = {0, 0, 0, 0x10000, (u64)memory};
  must("memory ", control(vm, KVM_SET_USER_MEMORY_REGION, (long)&region));
  long cpu = must("KVM_CREATE_VCPU ", control(vm, KVM_CREATE_VCPU, 0));
  long bytes = must("size ", control(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
  const u8 *shared = (const u8 *)must("mmap ", system_call(MMAP, 0, bytes, 3, 1, cpu, 0));
  must("KVM_GET_SREGS ", control(cpu, KVM_GET_SREGS, (long)segments));
  *(u64 *)segments = 0; /* base and selector of CS */
  *(u16 *)(segments + 12) = 0;
  must("KVM_SET_SREGS ", control(cpu, KVM_SET_SREGS, (long)segments));
  registers.rip = 0x1000;
  registers.rsp = 0x8000;
  registers.rflags = 2;
  must("KVM_SET_REGS ", control(cpu, KVM_SET_REGS, (long)&registers));
  run(cpu, shared);
  off();
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call begin\n");
