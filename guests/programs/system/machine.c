#include "machine.h"

#include <stdarg.h>

struct run run;
u64 kernel_ttbr0, kernel_tcr, kernel_sctlr, kernel_mair;

static u64 level1[512] __attribute__((aligned(4096)));
static u64 level2[512] __attribute__((aligned(4096)));
static u64 random_state;

static void put(char c) {
    volatile u32 *uart = (u32 *)0x09000000;
    while (uart[6] & 1 << 5) {
    }
    uart[0] = c;
}

static void put_number(u64 n, u64 base) {
    char digits[24];
    int i = 0;
    do {
        digits[i++] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    while (i) put(digits[--i]);
}

void print(const char *format, ...) {
    va_list list;
    va_start(list, format);
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            put(*p);
            continue;
        }
        switch (*++p) {
        case 'x': put_number(va_arg(list, u64), 16); break;
        case 'd': put_number(va_arg(list, u64), 10); break;
        case 's':
            for (const char *s = va_arg(list, const char *); *s; s++) put(*s);
            break;
        }
    }
    va_end(list);
}

// What the compiler calls.
void *memset(void *to, int c, u64 n) {
    for (volatile u8 *p = to; n--;) *p++ = (u8)c;
    return to;
}

void *memcpy(void *to, const void *from, u64 n) {
    const u8 *q = from;
    for (volatile u8 *p = to; n--;) *p++ = *q++;
    return to;
}

u64 random64(void) {
    u64 z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

u64 call(u64 function, u64 a, u64 b, u64 c) {
    register u64 x0 asm("x0") = function;
    register u64 x1 asm("x1") = a;
    register u64 x2 asm("x2") = b;
    register u64 x3 asm("x3") = c;
    asm volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)::"memory", "x4", "x5", "x6", "x7", "x8", "x9",
                 "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17");
    return x0;
}

void power_off(void) {
    print("end: of program\n");
    for (;;) call(0x84000008, 0, 0, 0);
}

void kernel_fault(void) {
    print("kernel fault: vector %d esr %x elr %x far %x\n", run.vector, run.esr, run.pc, run.far);
    power_off();
}

#define NORMAL (0ul << 2 | 3 << 8 | 1 << 10)
#define DEVICE (1ul << 2 | 1 << 10)
#define PXN (1ul << 53)
#define UXN (1ul << 54)

void kernel_start(void) {
    random_state = SEED * 0x2545f4914f6cdd1d + 1;
    level1[0] = DEVICE | PXN | UXN | 1;
    level1[1] = (u64)level2 | 3;
    // The text (2 MiB) is read-only, the rest is for EL1 and not to be executed.
    for (u64 i = 0; i < 512; i++) level2[i] = (0x40000000 + (i << 21)) | NORMAL | PXN | UXN | 1;
    level2[1] = 0x40200000 | NORMAL | UXN | 1 << 7 | 1;
    // Read-only for both levels, both may execute; then what EL0 writes.
    level1[2] = 0x40000000 | NORMAL | 3 << 6 | 1;
    level1[3] = 0x40000000 | NORMAL | 1 << 6 | 1;
    kernel_ttbr0 = (u64)level1;
    kernel_tcr = 25 | 25 << 16 | 2ul << 30 | 5ul << 32;
    kernel_mair = 0x00ff | 0x44ul << 16 | 0x04ul << 24 | 0xbbul << 32;
    kernel_sctlr = 0x30d01805;
    write_register("mair_el1", kernel_mair);
    write_register("tcr_el1", kernel_tcr);
    write_register("ttbr0_el1", kernel_ttbr0);
    write_register("ttbr1_el1", kernel_ttbr0);
    flush_tlb();
    write_register("sctlr_el1", kernel_sctlr);
}

static u8 other_stack[4096] __attribute__((aligned(4096)));

void prepare(u64 pc, u64 spsr) {
    for (int i = 0; i < 31; i++) run.x[i] = 0x1111111111111111ul * (i & 15);
    u64 stack = (u64)other_stack + sizeof other_stack;
    run.sp0 = stack + ((spsr & 15) == 0 ? USER_DATA : 0);
    run.sp1 = stack - 2048;
    run.pc = pc + ((spsr & 15) == 0 ? USER_TEXT : 0);
    run.spsr = spsr;
    run.ttbr0 = run.ttbr1 = kernel_ttbr0;
    run.tcr = kernel_tcr;
    run.sctlr = kernel_sctlr;
    run.mair = kernel_mair;
    run.keep_tlb = 0;
}

void at(u64 spsr, const void *code, u64 x0, u64 x1) {
    prepare((u64)code, spsr);
    run.x[0] = x0;
    run.x[1] = x1;
    enter();
}

void report(const char *label, u64 base) {
    u64 class = run.esr >> 26;
    u64 pc = run.pc;
    if (base && (run.spsr & 15) == 0) base += USER_TEXT;
    // Only aborts, PC alignment and watchpoints give FAR a value.
    int far = class == 0x20 || class == 0x21 || class == 0x22 || class == 0x24 || class == 0x25 || class == 0x34 ||
              class == 0x35;
    if (run.vector % 4 != 0) {
        print("%s: vector %d elr %s%x spsr %x\n", label, run.vector, base ? "+" : "", pc - base, run.spsr);
        return;
    }
    print("%s: vector %d esr %x elr %s%x spsr %x", label, run.vector, run.esr, base ? "+" : "", pc - base, run.spsr);
    if (far) print(" far %x", run.far);
    print("\n");
}
