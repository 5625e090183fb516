# A firmware of 64 KiB that goes from reset through protected mode to long mode with paging, works a little, and ends QEMU
# with a code of its own through isa-debug-exit.
        .code16
start:  cli
        lgdtl   %cs:gdtr - start
        mov     %cr0, %eax
        or      $1, %eax
        mov     %eax, %cr0
        ljmpl   $8, $0xF0000 + protected - start
        .code32
protected:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $0x8000, %esp
        xor     %eax, %eax
        mov     $0x1000, %edi
        mov     $0xC00, %ecx
        cld
        rep stosl
        movl    $0x2003, 0x1000
        movl    $0x3003, 0x2000
        movl    $0x0083, 0x3000
        mov     $0x620, %eax
        mov     %eax, %cr4
        mov     $0x1000, %eax
        mov     %eax, %cr3
        mov     $0xC0000080, %ecx
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        ljmpl   $24, $0xF0000 + long_mode - start
        .code64
long_mode:
        mov     $100000, %ecx
        xor     %eax, %eax
1:      lock xaddq %rax, 0x7000
        movq    %rcx, %xmm0
        loop    1b
        xor     %eax, %eax
        cpuid
        mov     $0x2A, %al
        out     %al, $0xF4
        hlt
        .balign 8
gdt:    .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF, 0x00AF9A000000FFFF
gdtr:   .word . - gdt - 1
        .long 0xF0000 + gdt - start
