/* Multiboot entry of the bench images: 32-bit protected mode to 64-bit mode, then bench_main(magic, info).
   Identity map of the first 4 GiB with 2-MiB pages; a GDT with ring 0 and ring 3 code; a TSS; an IDT that C fills. */
    .set MB_MAGIC, 0x1BADB002
    .set MB_FLAGS, 0x00000003
    .section .multiboot, "a"
    .align 4
    .long MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)

    .section .bss
    .align 4096
    .global pml4
pml4:   .skip 4096
pdpt:   .skip 4096
pds:    .skip 4096 * 4
    .align 16
stack:  .skip 65536
stack_top:
    .global tss
    .align 16
tss:    .skip 128

    .section .data
    .align 16
    .global gdt
gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF    /* 08: ring-0 code */
    .quad 0x00CF93000000FFFF    /* 10: ring-0 data */
    .quad 0x00CFFB000000FFFF    /* 18: ring-3 compatibility code */
    .quad 0x00CFF3000000FFFF    /* 20: ring-3 data */
    .quad 0x00AFFB000000FFFF    /* 28: ring-3 code */
    .quad 0, 0                  /* 30: TSS */
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .quad gdt

    .section .text
    .code32
    .global _start
_start:
    cld
    movl %eax, %ebp
    movl %ebx, %esi
    movl $stack_top, %esp
    /* page tables */
    movl $pdpt + 3, pml4
    movl $pds + 3, %eax
    movl $pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $0x83, %eax
    movl $pds, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b
    movl $pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x101, %eax            /* SCE, LME */
    wrmsr
    movl %cr0, %eax
    andl $~0x4, %eax
    orl $0x80000002, %eax       /* PG, MP */
    movl %eax, %cr0
    lgdt gdtr
    ljmp $0x08, $long_mode
    .code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq $stack_top, %rsp
    movl %ebp, %edi
    call bench_main
3:  hlt
    jmp 3b

/* u64 int80_loop(u64 n): n round trips of INT 80H through isr80, which counts them */
    .global int80_loop, isr80
int80_loop:
    xorl %eax, %eax
1:  int $0x80
    decq %rdi
    jnz 1b
    ret
isr80:
    incq %rax
    iretq

/* Page fault: maps the page's PTE, returns; the loop unmaps and INVLPGs. */
    .global isr_pf, pf_pte, pf_value
isr_pf:
    pushq %rax
    pushq %rcx
    movq pf_pte(%rip), %rax
    movq pf_value(%rip), %rcx
    movq %rcx, (%rax)
    popq %rcx
    popq %rax
    addq $8, %rsp
    iretq
    .global pf_loop
/* u64 pf_loop(u64 n, u64 *va, u64 *pte): sum of what was read */
pf_loop:
    xorl %eax, %eax
1:  addq (%rsi), %rax
    movq $0, (%rdx)
    invlpg (%rsi)
    decq %rdi
    jnz 1b
    ret
    .section .data
pf_pte:   .quad 0
pf_value: .quad 0
    .section .text

/* SYSCALL round trips in ring 3: user_loop runs there; syscall_entry returns by SYSRET; INT 81H comes back. */
    .global enter_user, syscall_entry, isr81, user_loop
/* u64 enter_user(rip, rsp, n): number of round trips */
enter_user:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, saved_rsp(%rip)
    movq %rdx, %rbx
    xorl %r8d, %r8d
    pushq $0x23
    pushq %rsi
    pushq $0x202
    andq $~0x200, (%rsp)
    pushq $0x2b
    pushq %rdi
    iretq
syscall_entry:
    incq %r8
    sysretq
isr81:
    movq saved_rsp(%rip), %rsp
    movl $0x10, %eax
    movl %eax, %ss
    movq %r8, %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
user_loop:
1:  syscall
    decq %rbx
    jnz 1b
    int $0x81
    .section .data
saved_rsp: .quad 0
    .section .text

/* u64 smc_loop(u64 n, u8 *code): stores into an instruction and executes it; sum of what the instruction gave */
    .global smc_loop
smc_loop:
    xorl %edx, %edx
    movl $0xB8, %eax
    movb %al, (%rsi)
    movb $0xC3, 5(%rsi)
1:  movl %edi, 1(%rsi)
    call *%rsi
    addq %rax, %rdx
    decq %rdi
    jnz 1b
    movq %rdx, %rax
    ret

/* u64 cr3_loop(u64 n, u64 cr3a, u64 cr3b, u8 *data): two switches a turn, four loads behind each; sum of what was read */
    .global cr3_loop
cr3_loop:
    xorl %eax, %eax
1:  movq %rsi, %cr3
    addq (%rcx), %rax
    addq 0x1000(%rcx), %rax
    addq 0x2000(%rcx), %rax
    addq 0x3000(%rcx), %rax
    movq %rdx, %cr3
    addq (%rcx), %rax
    addq 0x1000(%rcx), %rax
    addq 0x2000(%rcx), %rax
    addq 0x3000(%rcx), %rax
    decq %rdi
    jnz 1b
    ret

/* void rep_loop(u64 n, void *dst, void *src, u64 bytes) */
    .global rep_loop
rep_loop:
    movq %rdi, %rax
    movq %rcx, %r8
    movq %rsi, %r9
    movq %rdx, %r10
1:  movq %r8, %rcx
    movq %r9, %rdi
    movq %r10, %rsi
    rep movsb
    decq %rax
    jnz 1b
    ret
/* u64 gate_loop(u64 n): enters gate 0 n times (only on a machine that has it); sum of what it gave */
    .global gate_loop
gate_loop:
    xorl %edx, %edx
1:  .byte 0x0f, 0xff, 0x05
    .long 0                     /* GATE 0 */
    .byte 0x0f, 0xff, 0x05
    .long -1                    /* RESUME */
    addq %rax, %rdx
    decq %rdi
    jnz 1b
    movq %rdx, %rax
    ret
    .section .note.GNU-stack, "", @progbits
