#include "walk.h"
#define GICD 0x08000000ul
#define GICC 0x08010000ul

static u64 make_step(u32 op, u32 n) {
    u64 bank = GICD + n / 32 * 4, v = 0xffffff;
    u32 bit = 1u << (n % 32), a, k;
    switch (op) {
    case 0: w32(bank + 0x80, rnd()); break;
    case 1: case 2: w32(bank + 0x100, few() | bit); break;
    case 3: w32(bank + 0x180, bit); break;
    case 4: case 5: w32(bank + 0x200, bit); break;
    case 6: w32(bank + 0x280, bit); break;
    case 7: if (below(4) == 0) w32(bank + 0x300, bit); else w32(bank + 0x380, bit); break;
    case 8: case 9: w8(GICD + 0x400 + n, rnd()); break;
    case 10: w32(n < 32 ? GICD + 0xc04 : GICD + 0xc08, rnd() & 0xaaaaaaaa); break;
    case 11: case 12: a = rnd() & 0xff; if (below(3)) a |= 0xc0; w32(GICC + 4, a); break;
    case 13:
        a = below(7);
        if (r32(GICC + 0x14) == 0xff) { w32(GICC + 8, a); w32(GICC + 0x1c, a + 1); }
        break;
    case 14: case 15: a = rnd() & 0x21f; if (below(2)) a &= 0x1f; w32(GICC, a | 3); break;
    case 16: case 17: case 18: case 19: v = r32(GICC + 0xc); push(v); break;
    case 20: case 21: case 22:
        k = below(8);
        a = k && depth ? taken[--depth] : n;
        w32(GICC + (k == 7 ? 0x1000 : 0x10), a);
        break;
    case 23: a = below(3) << 24; a |= below(8) << 16; a |= below(4); w32(GICD + 0xf00, a); break;
    }
    return v;
}

void walk(void) {
    for (int i = 32; i < 64; i += 4) w32(GICD + 0x800 + i, 0x01010101);
    w32(GICD, 3);
    w32(GICC + 4, 0xff);
    w32(GICC, 3);
    for (int step = 0; step < 20000; step++) {
        u32 op = below(24), n = intids[below(12)];
        answer(make_step(op, n));
        answer(MRS(isr_el1) >> 6);
        answer(r32(GICC + 0x14));
        for (int i = 0; i < 8; i++) answer(r32(GICC + 0xd0 + 4 * i));
        answer(r32(GICC));
        answer(r32(GICD + 0x204));
        answer(r32(GICD + 0x304));
        answer(r32(GICD + 0x200));
        answer(r32(GICD + 0x300));
        answer(r32(GICD + 0xf20));
        end_of_step(step);
    }
}
