// Simple instructions in a loop: arithmetic, logic, loads, stores, compares and branches, 20 a turn.
// Says "start", runs 50 million turns (10^9 instructions), says "done", and turns the machine off.

        .global _start
_start:
        adr     x0, start_text
        bl      print
        adr     x10, buffer
        movz    x11, #(50000000 & 0xffff)
        movk    x11, #(50000000 >> 16), lsl #16
        mov     x1, #1
        mov     x2, #2
        mov     x3, #3
        mov     x4, #0
1:      add     x1, x1, x2
        eor     x3, x3, x1
        lsl     x5, x3, #3
        sub     x6, x5, x1
        and     x7, x6, #0xff
        ldr     x8, [x10, #8]
        add     x8, x8, x7
        str     x8, [x10, #8]
        orr     x4, x4, x8
        ldrb    w9, [x10, x7]
        add     x4, x4, x9
        cmp     x4, x1
        csel    x2, x2, x3, hi
        add     w12, w4, w9
        ror     x4, x4, #7
        tst     x12, #1
        b.eq    2f
        add     x2, x2, #1
2:      mov     x13, x2
        subs    x11, x11, #1
        b.ne    1b
        adr     x0, done_text
        bl      print
        movz    w0, #0x0008
        movk    w0, #0x8400, lsl #16
        hvc     #0
3:      wfi
        b       3b

// Prints the text at x0 on the UART.
print:  movz    x1, #0x0900, lsl #16
4:      ldrb    w2, [x0], #1
        cbz     w2, 5f
        str     w2, [x1]
        b       4b
5:      ret

start_text:
        .asciz  "start\n"
done_text:
        .asciz  "done\n"
        .balign 64
buffer: .skip   512
