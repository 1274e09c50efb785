.section .text.start
.global _start
_start:
    ldr x1, =stack_top
    mov sp, x1
    bl walk
    ldr x0, =0x84000008         // PSCI SYSTEM_OFF
    hvc #0
1:  b 1b
.bss
.balign 16
.space 65536
stack_top:
