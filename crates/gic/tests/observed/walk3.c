#include "walk.h"
#define GICD 0x08000000ul
#define SGI_BASE 0x080b0000ul
#define PMR S3_0_C4_C6_0
#define IAR0 S3_0_C12_C8_0
#define EOIR0 S3_0_C12_C8_1
#define HPPIR0 S3_0_C12_C8_2
#define BPR0 S3_0_C12_C8_3
#define AP0R0 S3_0_C12_C8_4
#define AP1R0 S3_0_C12_C9_0
#define DIR S3_0_C12_C11_1
#define RPR S3_0_C12_C11_3
#define SGI1R S3_0_C12_C11_5
#define ASGI1R S3_0_C12_C11_6
#define SGI0R S3_0_C12_C11_7
#define IAR1 S3_0_C12_C12_0
#define EOIR1 S3_0_C12_C12_1
#define HPPIR1 S3_0_C12_C12_2
#define BPR1 S3_0_C12_C12_3
#define CTLR S3_0_C12_C12_4
#define IGRPEN0 S3_0_C12_C12_6
#define IGRPEN1 S3_0_C12_C12_7

static u64 make_step(u32 op, u32 n) {
    u64 bank = n < 32 ? SGI_BASE : GICD + 4, v = 0xffffff;
    u32 bit = 1u << (n % 32), a, k;
    switch (op) {
    case 0: w32(bank + 0x80, rnd()); break;
    case 1: case 2: w32(bank + 0x100, few() | bit); break;
    case 3: w32(bank + 0x180, bit); break;
    case 4: case 5: w32(bank + 0x200, bit); break;
    case 6: w32(bank + 0x280, bit); break;
    case 7: if (below(4) == 0) w32(bank + 0x300, bit); else w32(bank + 0x380, bit); break;
    case 8: case 9: w8((n < 32 ? SGI_BASE : GICD) + 0x400 + n, rnd() & 0xf8); break;
    case 10: w32(n < 32 ? SGI_BASE + 0xc04 : GICD + 0xc08, rnd()); break;
    case 11: a = below(4); if (n >= 32) w64(GICD + 0x6000 + 8 * n, a % 3); break;
    case 12: a = rnd() & 0xff; if (below(3)) a |= 0xc0; MSR(PMR, a); break;
    case 13: a = below(8); if (below(2)) MSR(BPR0, a); else MSR(BPR1, a); break;
    case 14: a = below(4); if (below(2)) a &= 1; MSR(CTLR, a); break;
    case 15: a = below(4) != 0; if (below(2)) MSR(IGRPEN0, a); else MSR(IGRPEN1, a); break;
    case 16: a = below(8) ? 3 : below(4); w32(GICD, a); break;
    case 17: case 18: v = MRS(IAR0); push(v); break;
    case 19: case 20: v = MRS(IAR1); push(v); break;
    case 21: case 22:
        k = below(8);
        a = k && depth ? taken[--depth] : n;
        if (k == 7) MSR(DIR, a); else if (below(2)) MSR(EOIR0, a); else MSR(EOIR1, a);
        break;
    case 23: {
        u64 sgi = (u64)below(4) << 24;
        k = below(3);
        if (below(4) == 0) sgi |= 1ul << 40; else sgi |= below(8);
        if (k == 0) MSR(SGI0R, sgi); else if (k == 1) MSR(SGI1R, sgi); else MSR(ASGI1R, sgi);
    }
    }
    return v;
}

void walk(void) {
    w32(GICD, 3);
    MSR(PMR, 0xf8);
    MSR(IGRPEN0, 1);
    MSR(IGRPEN1, 1);
    for (int step = 0; step < 20000; step++) {
        u32 op = below(24), n = intids[below(12)];
        answer(make_step(op, n));
        answer(MRS(isr_el1) >> 6);
        answer(MRS(HPPIR0));
        answer(MRS(HPPIR1));
        answer(MRS(RPR));
        answer(MRS(AP0R0));
        answer(MRS(AP1R0));
        answer(MRS(BPR1));
        answer(r32(GICD + 0x204));
        answer(r32(GICD + 0x304));
        answer(r32(SGI_BASE + 0x200));
        answer(r32(SGI_BASE + 0x300));
        answer(r32(SGI_BASE + 0x20200));
        end_of_step(step);
    }
}
