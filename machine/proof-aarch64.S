// A program for QEMU's machine `virt`, loaded at 0x40200000 (2 MiB above the start of RAM, where the
// device tree lies): it turns on paging, works a little, prints a word on
// the serial port, and has the firmware interface (PSCI) switch the machine off, which ends QEMU.
        .equ    RAM, 0x4000             // of addresses, the upper half
        .equ    TABLE, RAM + 0x21
        .equ    COUNTER, RAM + 0x22
        .text
start:  mov     x0, #3 << 20            // let it use floating point
        msr     cpacr_el1, x0
        movz    x1, #TABLE, lsl #16
        mov     x2, x1
        mov     x3, #512
1:      str     xzr, [x2], #8
        subs    x3, x3, #1
        b.ne    1b
        mov     x2, #0x401              // the first GiB: devices
        str     x2, [x1]
        movz    x2, #0x705              // the second one: RAM
        movk    x2, #RAM, lsl #16
        str     x2, [x1, #8]
        mov     x2, #0xff00
        msr     mair_el1, x2
        // 39 bits of address. The table was written without caches, so it is read without them.
        movz    x2, #0x0019
        movk    x2, #0x0080, lsl #16
        msr     tcr_el1, x2
        msr     ttbr0_el1, x1
        dsb     sy
        tlbi    vmalle1
        dsb     sy
        isb
        mrs     x2, sctlr_el1
        orr     x2, x2, #1
        orr     x2, x2, #4
        orr     x2, x2, #0x1000
        msr     sctlr_el1, x2
        isb
        movz    x4, #COUNTER, lsl #16
        movz    w5, #0x86a0             // 100,000 times
        movk    w5, #1, lsl #16
2:      ldaxr   x6, [x4]
        add     x6, x6, #1
        stlxr   w7, x6, [x4]
        cbnz    w7, 2b
        fmov    d0, x5
        subs    w5, w5, #1
        b.ne    2b
        movz    x8, #0x0900, lsl #16    // the serial port, a PL011
        adr     x9, word
3:      ldrb    w10, [x9], #1
        cbz     w10, 4f
        str     w10, [x8]
        b       3b
4:      movz    w0, #0x0008             // SYSTEM_OFF
        movk    w0, #0x8400, lsl #16
        hvc     #0
5:      wfi
        b       5b
word:   .asciz  "proved\n"
