/* Multiboot entry of the 32-bit bench image: protected mode with 32-bit paging, then bench_main(magic, info).
   Identity map of 4 GiB with 4-MiB pages; the same names as start.S, arguments in EAX, EDX, ECX (-mregparm=3). */
    .set MB_MAGIC, 0x1BADB002
    .set MB_FLAGS, 0x00000003
    .section .multiboot, "a"
    .align 4
    .long MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)

    .section .bss
    .align 4096
    .global pml4
pml4:   .skip 4096
    .align 16
stack:  .skip 65536
stack_top:

    .section .data
    .align 16
    .global gdt
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    /* 08: code */
    .quad 0x00CF93000000FFFF    /* 10: data */
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .long gdt

    .section .text
    .global _start
_start:
    cld
    movl %eax, %ebp
    movl %ebx, %esi
    movl $stack_top, %esp
    movl $0x83, %eax            /* present, writable, 4 MiB */
    movl $pml4, %edi
    movl $1024, %ecx
1:  movl %eax, (%edi)
    addl $0x400000, %eax
    addl $4, %edi
    loop 1b
    movl $pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x10, %eax             /* PSE */
    movl %eax, %cr4
    movl %cr0, %eax
    andl $~0x4, %eax
    orl $0x80000002, %eax       /* PG, MP */
    movl %eax, %cr0
    lgdt gdtr
    ljmp $0x08, $2f
2:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl %ebp, %eax
    movl %esi, %edx
    call bench_main
3:  hlt
    jmp 3b

/* u64 int80_loop(u64 n): n round trips of INT 80H through isr80, which counts them */
    .global int80_loop, isr80
int80_loop:
    movl %eax, %ecx
    xorl %eax, %eax
1:  int $0x80
    decl %ecx
    jnz 1b
    ret
isr80:
    incl %eax
    iret

/* Page fault: maps the page's PTE, returns; the loop unmaps and INVLPGs. */
    .global isr_pf, pf_pte, pf_value
isr_pf:
    pushl %eax
    pushl %ecx
    movl pf_pte, %eax
    movl pf_value, %ecx
    movl %ecx, (%eax)
    popl %ecx
    popl %eax
    addl $4, %esp
    iret
    .global pf_loop
/* u64 pf_loop(u64 n, u64 *va, u64 *pte): sum of what was read */
pf_loop:
    pushl %ebx
    movl %eax, %ebx
    xorl %eax, %eax
1:  addl (%edx), %eax
    movl $0, (%ecx)
    invlpg (%edx)
    decl %ebx
    jnz 1b
    popl %ebx
    ret
    .section .data
pf_pte:   .long 0
pf_value: .long 0
    .section .text

/* u64 smc_loop(u64 n, u8 *code): stores into an instruction and executes it; sum of what the instruction gave */
    .global smc_loop
smc_loop:
    pushl %edi
    pushl %esi
    movl %eax, %edi
    movl %edx, %esi
    xorl %edx, %edx
    movb $0xB8, (%esi)
    movb $0xC3, 5(%esi)
1:  movl %edi, 1(%esi)
    call *%esi
    addl %eax, %edx
    decl %edi
    jnz 1b
    movl %edx, %eax
    popl %esi
    popl %edi
    ret

/* u64 cr3_loop(u64 n, u64 cr3a, u64 cr3b, u8 *data): two switches a turn, four loads behind each; sum of what was read */
    .global cr3_loop
cr3_loop:
    pushl %ebx
    pushl %edi
    movl %eax, %edi
    movl 12(%esp), %ebx
    xorl %eax, %eax
1:  movl %edx, %cr3
    addl (%ebx), %eax
    addl 0x1000(%ebx), %eax
    addl 0x2000(%ebx), %eax
    addl 0x3000(%ebx), %eax
    movl %ecx, %cr3
    addl (%ebx), %eax
    addl 0x1000(%ebx), %eax
    addl 0x2000(%ebx), %eax
    addl 0x3000(%ebx), %eax
    decl %edi
    jnz 1b
    popl %edi
    popl %ebx
    ret

/* void rep_loop(u64 n, void *dst, void *src, u64 bytes) */
    .global rep_loop
rep_loop:
    pushl %ebx
    pushl %esi
    pushl %edi
    pushl %ebp
    movl %edx, %ebp
    movl %ecx, %ebx
    movl 20(%esp), %edx
1:  movl %edx, %ecx
    movl %ebp, %edi
    movl %ebx, %esi
    rep movsb
    decl %eax
    jnz 1b
    popl %ebp
    popl %edi
    popl %esi
    popl %ebx
    ret
    .section .note.GNU-stack, "", @progbits
