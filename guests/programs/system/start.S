// The start of the system-level programs, their vectors, and the switch to the other world (see machine.h).

        .equ    SP0, 0xf8
        .equ    SP1, 0x100
        .equ    PC, 0x108
        .equ    SPSR, 0x110
        .equ    VECTOR, 0x118
        .equ    ESR, 0x120
        .equ    FAR, 0x128
        .equ    PAR, 0x130
        .equ    TTBR0, 0x138
        .equ    TTBR1, 0x140
        .equ    TCR, 0x148
        .equ    SCTLR, 0x150
        .equ    MAIR, 0x158
        .equ    ACTIVE, 0x160
        .equ    KERNEL, 0x168
        .equ    KEEP_TLB, 0x1d8

        .text
        .global _start
_start: msr     daifset, #15
        msr     spsel, #1
        adrp    x0, stack_end
        add     x0, x0, :lo12:stack_end
        mov     sp, x0
        mov     x0, #3 << 20
        msr     cpacr_el1, x0
        adr     x0, vectors
        msr     vbar_el1, x0
        isb
        bl      kernel_start
        bl      main
        bl      power_off

        .macro  vector number
        .balign 0x80
        msr     tpidrro_el0, x0
        mov     x0, #\number
        b       leave
        .endm

        .balign 0x800
        .global vectors
vectors:
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vector  \n
        .endr

        .balign 0x80
leave:  msr     tpidr_el1, x1
        adrp    x1, run
        add     x1, x1, :lo12:run
        str     x0, [x1, #VECTOR]
        mrs     x0, tpidrro_el0
        stp     x2, x3, [x1, #16]
        stp     x4, x5, [x1, #32]
        stp     x6, x7, [x1, #48]
        stp     x8, x9, [x1, #64]
        stp     x10, x11, [x1, #80]
        stp     x12, x13, [x1, #96]
        stp     x14, x15, [x1, #112]
        stp     x16, x17, [x1, #128]
        stp     x18, x19, [x1, #144]
        stp     x20, x21, [x1, #160]
        stp     x22, x23, [x1, #176]
        stp     x24, x25, [x1, #192]
        stp     x26, x27, [x1, #208]
        stp     x28, x29, [x1, #224]
        str     x30, [x1, #240]
        mrs     x2, tpidr_el1
        stp     x0, x2, [x1]
        mov     x3, sp
        str     x3, [x1, #SP1]
        mrs     x2, sp_el0
        str     x2, [x1, #SP0]
        mrs     x2, elr_el1
        mrs     x3, spsr_el1
        stp     x2, x3, [x1, #PC]
        mrs     x2, esr_el1
        mrs     x3, far_el1
        stp     x2, x3, [x1, #ESR]
        mrs     x2, par_el1
        str     x2, [x1, #PAR]
        ldr     x2, [x1, #ACTIVE]
        str     xzr, [x1, #ACTIVE]
        // The kernel's registers.
        ldp     x19, x20, [x1, #KERNEL]
        ldp     x21, x22, [x1, #KERNEL + 16]
        ldp     x23, x24, [x1, #KERNEL + 32]
        ldp     x25, x26, [x1, #KERNEL + 48]
        ldp     x27, x28, [x1, #KERNEL + 64]
        ldp     x29, x30, [x1, #KERNEL + 80]
        ldr     x3, [x1, #KERNEL + 96]
        // The kernel's translation.
        adrp    x4, kernel_ttbr0
        add     x4, x4, :lo12:kernel_ttbr0
        ldr     x5, [x4]
        adrp    x4, kernel_tcr
        add     x4, x4, :lo12:kernel_tcr
        ldr     x6, [x4]
        adrp    x4, kernel_sctlr
        add     x4, x4, :lo12:kernel_sctlr
        ldr     x7, [x4]
        adrp    x4, kernel_mair
        add     x4, x4, :lo12:kernel_mair
        ldr     x8, [x4]
        msr     ttbr0_el1, x5
        msr     ttbr1_el1, x5
        msr     tcr_el1, x6
        msr     mair_el1, x8
        msr     sctlr_el1, x7
        isb
        ldr     x4, [x1, #KEEP_TLB]
        cbnz    x4, 1f
        tlbi    vmalle1
        dsb     sy
        isb
1:      mov     sp, x3
        // An exception of the kernel itself: say so and end.
        cbz     x2, 2f
        ret
2:      adrp    x3, stack_end
        add     x3, x3, :lo12:stack_end
        mov     sp, x3
        ldr     x3, =kernel_fault
        br      x3

        .global enter_upper
enter_upper:
        movz    x1, #0xffff, lsl #48
        movk    x1, #0xff80, lsl #32
        b       1f
        .global enter
enter:  mov     x1, #0
1:      adr     x0, 2f
        add     x0, x0, x1
        br      x0
2:      adr     x2, vectors
        msr     vbar_el1, x2
        adrp    x0, run
        add     x0, x0, :lo12:run
        stp     x19, x20, [x0, #KERNEL]
        stp     x21, x22, [x0, #KERNEL + 16]
        stp     x23, x24, [x0, #KERNEL + 32]
        stp     x25, x26, [x0, #KERNEL + 48]
        stp     x27, x28, [x0, #KERNEL + 64]
        stp     x29, x30, [x0, #KERNEL + 80]
        mov     x2, sp
        str     x2, [x0, #KERNEL + 96]
        mov     x2, #1
        str     x2, [x0, #ACTIVE]
        ldr     x2, [x0, #MAIR]
        msr     mair_el1, x2
        ldp     x2, x3, [x0, #TTBR0]
        msr     ttbr0_el1, x2
        msr     ttbr1_el1, x3
        ldp     x2, x3, [x0, #TCR]
        msr     tcr_el1, x2
        msr     sctlr_el1, x3
        isb
        ldr     x2, [x0, #KEEP_TLB]
        cbnz    x2, 3f
        dsb     sy
        tlbi    vmalle1
        dsb     sy
        isb
3:      ldp     x2, x3, [x0, #PC]
        msr     elr_el1, x2
        msr     spsr_el1, x3
        msr     esr_el1, xzr
        msr     far_el1, xzr
        ldp     x2, x3, [x0, #SP0]
        msr     sp_el0, x2
        mov     sp, x3
        ldp     x2, x3, [x0, #16]
        ldp     x4, x5, [x0, #32]
        ldp     x6, x7, [x0, #48]
        ldp     x8, x9, [x0, #64]
        ldp     x10, x11, [x0, #80]
        ldp     x12, x13, [x0, #96]
        ldp     x14, x15, [x0, #112]
        ldp     x16, x17, [x0, #128]
        ldp     x18, x19, [x0, #144]
        ldp     x20, x21, [x0, #160]
        ldp     x22, x23, [x0, #176]
        ldp     x24, x25, [x0, #192]
        ldp     x26, x27, [x0, #208]
        ldp     x28, x29, [x0, #224]
        ldr     x30, [x0, #240]
        ldp     x0, x1, [x0]
        eret

        // A processor that was just turned on: what it finds, then off. x0 is where it says so.
        .global secondary
secondary:
        mrs     x1, currentel
        mrs     x2, daif
        stp     x1, x2, [x0, #8]
        mrs     x1, sctlr_el1
        mrs     x2, mpidr_el1
        stp     x1, x2, [x0, #24]
        mrs     x1, spsel
        mrs     x2, cpacr_el1
        stp     x1, x2, [x0, #40]
        dsb     sy
        mov     x1, #1
        str     x1, [x0]
        dsb     sy
        movz    w0, #0x0002
        movk    w0, #0x8400, lsl #16
        hvc     #0
1:      b       1b

        .bss
        .balign 16
stack:  .skip   0x8000
stack_end:
