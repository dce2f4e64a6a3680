/**
 * Linux programs without a C library, for tests: machine code as it came from the assembler (the source stands above each), in ELF files that
 * say whose they are in one way or another.
 *
 * @module
 */
import { CODE_VA } from "../user_program.ts";

/** How a file says whose it is. */
export interface LinuxElf {
  /** EI_OSABI. Default: 0. */
  readonly osabi?: number;
  /** First word of a note "GNU", type 1: 0 is Linux. Default: no note. */
  readonly abiTag?: number;
  /** A PT_INTERP. */
  readonly interpreter?: string;
}

const PT_LOAD = 1, PT_INTERP = 3, PT_NOTE = 4;
const NOTE_AT = 0x200, INTERPRETER_AT = 0x280;

/** An ELF64 file with one segment that may be read, written and executed, entered at its first byte. */
export function linuxElf(
  code: Uint8Array,
  { osabi = 0, abiTag, interpreter }: LinuxElf,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(0x1000 + code.length), view = new DataView(out.buffer);
  const headers: (readonly [type: number, at: number, bytes: number])[] = [[PT_LOAD, 0x1000, code.length]];
  if (abiTag !== undefined) {
    headers.push([PT_NOTE, NOTE_AT, 32]);
    [4, 16, 1].forEach((word, i) => view.setUint32(NOTE_AT + i * 4, word, true));
    out.set(new TextEncoder().encode("GNU"), NOTE_AT + 12);
    [abiTag, 3, 2, 0].forEach((word, i) => view.setUint32(NOTE_AT + 16 + i * 4, word, true));
  }
  if (interpreter !== undefined) {
    out.set(new TextEncoder().encode(interpreter), INTERPRETER_AT);
    headers.push([PT_INTERP, INTERPRETER_AT, interpreter.length + 1]);
  }
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, osabi]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(24, BigInt(CODE_VA), true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, headers.length, true);
  headers.forEach(([type, at, bytes], i) => {
    const header = 64 + i * 56, va = type === PT_LOAD ? CODE_VA : 0;
    view.setUint32(header, type, true);
    view.setUint32(header + 4, 7, true);
    [at, va, va, bytes, bytes].forEach((word, n) =>
      view.setBigUint64(header + 8 + n * 8, BigInt(word), true)
    );
  });
  out.set(code, 0x1000);
  return out;
}

const bytes = (base64: string) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

/** exit_group(7): 231 is no system call of DragonFly. */
export const EXIT_SEVEN: Uint8Array = Uint8Array.of(
  0xbf,
  7,
  0,
  0,
  0,
  0xb8,
  231,
  0,
  0,
  0,
  0x0f,
  0x05,
  0x0f,
  0x0b,
);

/**
 * SIGUSR1 (10 on Linux, 30 on DragonFly) to itself: the handler sees its number, `si_signo`, `si_code` and an aligned stack, spoils RBX and XMM0, and returns
 * through the restorer; RDX, RBX and XMM0 are as before. Exit status: the number that the handler saw.
 *
 *         movabs $0x1122334455667788, %rbx
 *         lea restorer(%rip), %rax
 *         push $0
 *         push %rax
 *         push $0x04000004
 *         lea handler(%rip), %rax
 *         push %rax
 *         mov $13, %eax
 *         mov $10, %edi
 *         mov %rsp, %rsi
 *         xor %edx, %edx
 *         mov $8, %r10d
 *         syscall
 *         test %eax, %eax
 *         jnz fail
 *         movq %rbx, %xmm0
 *         mov $39, %eax
 *         syscall
 *         mov %eax, %edi
 *         mov $10, %esi
 *         mov $0x77, %edx
 *         mov $62, %eax
 *         syscall
 *         test %eax, %eax
 *         jnz fail
 *         cmp $0x77, %edx
 *         jne fail
 *         movq %xmm0, %rax
 *         cmp %rbx, %rax
 *         jne fail
 *         mov 4(%rsp), %eax
 *         mov seen(%rip), %edi
 *         jmp out
 *     fail: mov $99, %edi
 *     out: mov $231, %eax
 *         syscall
 *         ud2
 *     handler:
 *         lea 8(%rsp), %rax
 *         test $15, %al
 *         jnz fail
 *         cmp %edi, (%rsi)
 *         jne fail
 *         cmpl $0, 8(%rsi)
 *         jne fail
 *         mov %edi, seen(%rip)
 *         xor %ebx, %ebx
 *         pxor %xmm0, %xmm0
 *         ret
 *     restorer:
 *         mov $15, %eax
 *         syscall
 *         ud2
 *         .align 4
 *     seen: .long 0
 */
export const SIGNALS: Uint8Array = bytes(
  "SLuId2ZVRDMiEUiNBZcAAABqAFBoBAAABEiNBWgAAABQuA0AAAC/CgAAAEiJ5jHSQboIAAAADwWFwHU+ZkgPbsO4JwAAAA8F" +
    "ice+CgAAALp3AAAAuD4AAAAPBYXAdRuD+nd1FmZID37ASDnYdQyLRCQEiz08AAAA6wW/YwAAALjnAAAADwUPC0iNRCQIqA91" +
    "6Tk+deWDfggAdd+JPRMAAAAx22YP78DDuA8AAAAPBQ8LDx8AAAAAAA==",
);

/**
 * Two faults in a handler's hands: a load from nowhere (SEGV_MAPERR with its address) and HLT (general protection: SIGSEGV with SI_KERNEL). The handler moves RIP on
 * in the context. Exit status: 2.
 *
 *         lea restorer(%rip), %rax
 *         push $0
 *         push %rax
 *         push $0x04000004
 *         lea handler(%rip), %rax
 *         push %rax
 *         mov $13, %eax
 *         mov $11, %edi
 *         mov %rsp, %rsi
 *         xor %edx, %edx
 *         mov $8, %r10d
 *         syscall
 *         movabs $0x123456789000, %rcx
 *         mov (%rcx), %al
 *     bad: mov %dil, %dil
 *         hlt
 *         mov count(%rip), %edi
 *         mov $231, %eax
 *         syscall
 *     handler:
 *         incl count(%rip)
 *         cmpl $2, count(%rip)
 *         je second
 *         cmpl $1, 8(%rsi)
 *         jne fail
 *         movabs $0x123456789000, %rax
 *         cmp %rax, 16(%rsi)
 *         jne fail
 *         addq $2, 168(%rdx)
 *         ret
 *     second:
 *         cmpl $0x80, 8(%rsi)
 *         jne fail
 *         addq $1, 168(%rdx)
 *         ret
 *     fail: mov $99, %edi
 *         mov $231, %eax
 *         syscall
 *     restorer:
 *         mov $15, %eax
 *         syscall
 *         .align 4
 *     count: .long 0
 */
export const FAULTS: Uint8Array = bytes(
  "SI0FkAAAAGoAUGgEAAAESI0FNQAAAFC4DQAAAL8LAAAASInmMdJBuggAAAAPBUi5AJB4VjQSAACKAUCI//SLPVwAAAC45wAA" +
    "AA8F/wVPAAAAgz1IAAAAAnQfg34IAXUrSLgAkHhWNBIAAEg5RhB1G0iDgqgAAAACw4F+CIAAAAB1CUiDgqgAAAABw79jAAAA" +
    "uOcAAAAPBbgPAAAADwVmkAAAAAA=",
);

/**
 * clone with CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID and SIGCHLD: the word is written in the child alone and is its pid; RDX is kept; the child ends itself with
 * tgkill(SIGUSR1), and wait4's status has Linux's number. Exit status: 42.
 *
 *         mov $56, %eax
 *         mov $0x01200011, %edi
 *         xor %esi, %esi
 *         mov $0x77, %edx
 *         lea word(%rip), %r10
 *         syscall
 *         test %eax, %eax
 *         js fail
 *         jz child
 *         cmpl $0, word(%rip)
 *         jne fail
 *         mov %eax, %ebx
 *         push $0
 *         mov %rsp, %rsi
 *         mov $-1, %edi
 *         xor %edx, %edx
 *         xor %r10d, %r10d
 *         mov $61, %eax
 *         syscall
 *         cmp %eax, %ebx
 *         jne fail
 *         mov (%rsp), %edi
 *         cmp $10, %edi
 *         jne fail
 *         mov $42, %edi
 *     out: mov $231, %eax
 *         syscall
 *     fail: mov $99, %edi
 *         jmp out
 *     child:
 *         cmp $0x77, %edx
 *         jne fail
 *         mov $186, %eax
 *         syscall
 *         cmp word(%rip), %eax
 *         jne fail
 *         mov %eax, %esi
 *         mov $39, %eax
 *         syscall
 *         mov %eax, %edi
 *         cmp %eax, %esi
 *         jne fail
 *         mov $10, %edx
 *         mov $234, %eax
 *         syscall
 *         jmp fail
 *         .align 4
 *     word: .long 0
 */
export const FORK: Uint8Array = bytes(
  "uDgAAAC/EQAgATH2uncAAABMjRV8AAAADwWFwHg7dECDPW0AAAAAdTCJw2oASInmv/////8x0kUx0rg9AAAADwU5w3UUizwk" +
    "g/8KdQy/KgAAALjnAAAADwW/YwAAAOvyg/p3dfS4ugAAAA8FOwUiAAAAdeWJxrgnAAAADwWJxznGdda6CgAAALjqAAAADwXr" +
    "yA8fAAAAAAA=",
);

/**
 * A thread with a stack and TLS of its own (0xfeed at FS:0), which it stores in a word that the first thread waits for by futex; then for the thread's end by
 * CLONE_CHILD_CLEARTID. Exit status: 43.
 *
 *         mov $9, %eax
 *         xor %edi, %edi
 *         mov $0x10000, %esi
 *         mov $3, %edx
 *         mov $0x22, %r10d
 *         mov $-1, %r8
 *         xor %r9d, %r9d
 *         syscall
 *         test %rax, %rax
 *         js fail
 *         lea 0xf000(%rax), %rsi
 *         mov %rax, %r8
 *         movabs $0xfeed, %rcx
 *         mov %rcx, (%rax)
 *         lea ptid(%rip), %rdx
 *         lea ctid(%rip), %r10
 *         movl $1, ctid(%rip)
 *         mov $0x003d0f00, %edi
 *         mov $56, %eax
 *         syscall
 *         test %eax, %eax
 *         js fail
 *         jz child
 *         cmp ptid(%rip), %eax
 *         jne fail
 *     wait1:
 *         mov word(%rip), %eax
 *         test %eax, %eax
 *         jnz woken
 *         lea word(%rip), %rdi
 *         mov $0x80, %esi
 *         xor %edx, %edx
 *         xor %r10d, %r10d
 *         mov $202, %eax
 *         syscall
 *         jmp wait1
 *     woken:
 *         cmp $0xfeed, %eax
 *         jne fail
 *     wait2:
 *         mov ctid(%rip), %edx
 *         test %edx, %edx
 *         jz gone
 *         lea ctid(%rip), %rdi
 *         xor %esi, %esi
 *         xor %r10d, %r10d
 *         mov $202, %eax
 *         syscall
 *         jmp wait2
 *     gone:
 *         mov $43, %edi
 *     out: mov $231, %eax
 *         syscall
 *     fail: mov $99, %edi
 *         jmp out
 *     child:
 *         mov %fs:0, %rax
 *         mov %eax, word(%rip)
 *         lea word(%rip), %rdi
 *         mov $0x81, %esi
 *         mov $1, %edx
 *         mov $202, %eax
 *         syscall
 *         xor %edi, %edi
 *         mov $60, %eax
 *         syscall
 *         ud2
 *         .align 4
 *     word: .long 0
 *     ptid: .long 0
 *     ctid: .long 0
 */
export const THREAD: Uint8Array = bytes(
  "uAkAAAAx/74AAAEAugMAAABBuiIAAABJx8D/////RTHJDwVIhcAPiJ8AAABIjbAA8AAASYnASLnt/gAAAAAAAEiJCEiNFb4A" +
    "AABMjRW7AAAAxwWxAAAAAQAAAL8ADz0AuDgAAAAPBYXAeGB0ZTsFlQAAAHVWiwWJAAAAhcB1GkiNPX4AAAC+gAAAADHSRTHS" +
    "uMoAAAAPBevcPe3+AAB1K4sVZgAAAIXSdBVIjT1bAAAAMfZFMdK4ygAAAA8F6+G/KwAAALjnAAAADwW/YwAAAOvyZEiLBCUA" +
    "AAAAiQUjAAAASI09HAAAAL6BAAAAugEAAAC4ygAAAA8FMf+4PAAAAA8FDwsAAAAAAAAAAAAAAAA=",
);
