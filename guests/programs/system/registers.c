// Every system register and system instruction at EL1 and EL0: which there are, which are trapped, their values, and
// which bits of them can be written.
#include "machine.h"

// `instruction; BRK` for each of the 2^16 combinations of op0, op1, CRn, CRm, op2 with X0: MRS and SYSL, MSR and SYS.
asm(".pushsection .text\n"
    ".balign 16\n .global reads\n reads:\n .set n, 0\n"
    ".rept 0x8000\n .inst 0xd5300000 | (n & 0x7fff) << 5\n brk #0xfff\n .set n, n + 1\n .endr\n"
    ".global writes\n writes:\n .set n, 0\n"
    ".rept 0x8000\n .inst 0xd5100000 | (n & 0x7fff) << 5\n brk #0xfff\n .set n, n + 1\n .endr\n"
    ".global instructions\n instructions:\n .set n, 0\n"
    ".rept 0x4000\n .inst 0xd5080000 | (n & 0x3fff) << 5\n brk #0xfff\n .set n, n + 1\n .endr\n"
    ".global states\n states:\n .set n, 0\n"
    ".rept 0x400\n .inst 0xd500401f | ((n >> 7) & 7) << 16 | ((n >> 3) & 15) << 8 | (n & 7) << 5\n"
    " brk #0xfff\n .set n, n + 1\n .endr\n"
    ".popsection\n");
extern const u32 reads[], writes[], instructions[], states[];

static u8 scratch[4096] __attribute__((aligned(4096)));

#define ENCODE(op0, op1, n, m, op2) ((op0) << 14 | (op1) << 11 | (n) << 7 | (m) << 3 | (op2))
#define ICC(m, op2) ENCODE(3, 0, 12, m, op2)

static int is(u64 register_, u64 first, u64 last) { return register_ >= first && register_ <= last; }

// What counts, or is random, or UNKNOWN after reset.
static int changes(u64 r) {
    return is(r, ENCODE(3, 3, 14, 0, 1), ENCODE(3, 3, 14, 0, 6)) || r == ENCODE(3, 3, 9, 13, 0) ||
           r == ENCODE(3, 3, 14, 2, 0) || r == ENCODE(3, 3, 14, 3, 0) || r == ENCODE(3, 3, 14, 2, 2) ||
           r == ENCODE(3, 3, 14, 3, 2) || is(r, ENCODE(3, 3, 2, 4, 0), ENCODE(3, 3, 2, 4, 1));
}

// Writes that do more than to change a register.
static int unsafe_write(u64 r) {
    return r == ICC(8, 1) || r == ICC(12, 1) || r == ICC(11, 1) || is(r, ICC(11, 5), ICC(11, 7));
}

static void name(const char *what, u64 spsr, u64 encoding) {
    print("%s EL%d S%d_%d_C%d_C%d_%d", what, spsr == EL0 ? 0ul : 1ul, encoding >> 14, encoding >> 11 & 7,
          encoding >> 7 & 15, encoding >> 3 & 15, encoding & 7);
}

// Whether the instruction completed; prints its line unless it is UNDEFINED.
static int ended(const char *what, u64 spsr, u64 encoding, const u32 *code, int value) {
    u64 start = (u64)code + (spsr == EL0 ? USER_TEXT : 0);
    u64 class = run.esr >> 26;
    int done = class == 0x3c && run.pc == start + 4;
    if (run.vector % 4 == 0 && class == 0 && run.pc == start) return 0;
    name(what, spsr, encoding);
    if (done && value) print(": %x\n", run.x[0]);
    else if (done) print(": done\n");
    else print(": vector %d esr %x far %x\n", run.vector, run.esr, run.far);
    return done;
}

static void sweep(u64 spsr) {
    u64 address = (u64)scratch + (spsr == EL0 ? USER_DATA : 0);
    for (u64 i = 0; i < 0x8000; i++) {
        u64 encoding = i | 0x8000;
        at(spsr, reads + i * 2, 0, 0);
        int there = ended("read", spsr, encoding, reads + i * 2, !changes(encoding));
        if (unsafe_write(encoding)) continue;
        // At EL1, what was read is written again.
        at(spsr, writes + i * 2, there ? run.x[0] : 0, 0);
        ended("write", spsr, encoding, writes + i * 2, 0);
    }
    for (u64 i = 0; i < 0x4000; i++) {
        at(spsr, instructions + i * 2, address, 0);
        ended("execute", spsr, i | 0x4000, instructions + i * 2, 0);
    }
    for (u64 i = 0; i < 0x400; i++) {
        u64 encoding = (i >> 7 & 7) << 11 | 4 << 7 | (i & 0x7f);
        // At EL1, unmasked interrupts are none; what became of PSTATE.
        at(spsr, states + i * 2, 0, 0);
        if (!ended("state", spsr, encoding, states + i * 2, 0)) continue;
        name("state after", spsr, encoding);
        print(": %x\n", run.spsr);
    }
}

// The bits that have a meaning in both, of registers written with ones and zeros while the MMU is off.
#define BITS(name, mask)                                                                            \
    do {                                                                                            \
        SNIPPET(bits_##name, "mrs x2, " #name "\n msr " #name ", x0\n isb\n mrs x3, " #name         \
                             "\n msr " #name ", x1\n isb\n mrs x4, " #name "\n msr " #name ", x2\n isb"); \
        prepare((u64)bits_##name, EL1H);                                                            \
        run.sctlr = 0x30d00800;                                                                     \
        run.x[0] = ~0ul;                                                                            \
        run.x[1] = 0;                                                                               \
        enter();                                                                                    \
        if (run.esr >> 26 == 0x3c)                                                                  \
            print("bits " #name ": %x %x\n", run.x[3] & (mask), run.x[4] & (mask));                 \
        else                                                                                        \
            report("bits " #name, (u64)bits_##name);                                                \
    } while (0)

#define ALL (~0ul)

static void writable(void) {
    BITS(ttbr0_el1, 0xfffffffffffffffeul & ~0x1eul);
    BITS(ttbr1_el1, 0xfffffffffffffffeul & ~0x1eul);
    BITS(tcr_el1, 0x0000007fffffffbful & ~(1ul << 35));
    BITS(mair_el1, ALL);
    BITS(vbar_el1, ~0x7fful);
    BITS(elr_el1, ALL);
    BITS(far_el1, ALL);
    BITS(esr_el1, 0xfffffffful);
    BITS(spsr_el1, 0xf06003deul);
    BITS(contextidr_el1, 0xfffffffful);
    BITS(tpidr_el0, ALL);
    BITS(tpidr_el1, ALL);
    BITS(tpidrro_el0, ALL);
    BITS(sp_el0, ALL);
    BITS(cpacr_el1, 3ul << 20);
    BITS(cntkctl_el1, 0x3fful);
    BITS(cntv_cval_el0, ALL);
    BITS(cntp_cval_el0, ALL);
    BITS(csselr_el1, 0ul);
    BITS(fpcr, 0x07c00000ul);
    BITS(fpsr, 0xf800009ful & ~0xf0000000ul);
    BITS(pmuserenr_el0, 0xful);
    BITS(pmselr_el0, 0x1ful);
    BITS(pmcntenset_el0, 1ul << 31);
    BITS(pmcntenclr_el0, 1ul << 31);
    BITS(pmovsset_el0, 1ul << 31);
    BITS(pmovsclr_el0, 1ul << 31);
    BITS(pmintenset_el1, 1ul << 31);
    BITS(pmintenclr_el1, 1ul << 31);
    BITS(pmccfiltr_el0, 3ul << 30);
    BITS(pmcr_el0, 0x59ul);
    BITS(mdscr_el1, 1ul | 1 << 12 | 1 << 13 | 1 << 15);
    BITS(dbgbvr0_el1, 0x0001fffffffffffcul);
    BITS(dbgbcr0_el1, 0xffe1e7ul);
    BITS(dbgbvr5_el1, 0xfffffffcul);
    BITS(dbgwvr0_el1, 0x0001fffffffffffcul);
    BITS(dbgwcr0_el1, 0x1f1ffffful);
    BITS(dbgwvr3_el1, 0x0001fffffffffffcul);
    BITS(par_el1, 0x00ul);
    BITS(nzcv, ALL);
    BITS(daif, ALL);
    BITS(S3_0_C4_C6_0, ALL); // ICC_PMR_EL1
    BITS(S3_0_C12_C8_3, ALL); // ICC_BPR0_EL1
    BITS(S3_0_C12_C12_3, ALL); // ICC_BPR1_EL1
    BITS(S3_0_C12_C12_4, 3ul); // ICC_CTLR_EL1
    BITS(S3_0_C12_C12_5, ALL); // ICC_SRE_EL1
    BITS(S3_0_C12_C12_6, ALL); // ICC_IGRPEN0_EL1
    BITS(S3_0_C12_C12_7, ALL); // ICC_IGRPEN1_EL1
}

// The bits of SCTLR_EL1, one by one, the MMU off.
static void control(void) {
    SNIPPET(control_bit, "msr sctlr_el1, x0\n isb\n mrs x2, sctlr_el1");
    u64 bits = 0x00000000048dd21eul;
    for (u64 b = 0; b < 64; b++) {
        if (!(bits >> b & 1)) continue;
        prepare((u64)control_bit, EL1H);
        run.sctlr = 0x30d00800;
        run.x[0] = run.sctlr ^ 1ul << b;
        enter();
        print("SCTLR bit %d: %d\n", b, run.x[2] >> b & 1);
    }
}

// What EL0 may do, by the controls of EL1.
static void controls(void) {
    static const struct control { const char *what; u64 sctlr, cntkctl, pmuserenr; } list[] = {
        {"UCT", 1 << 15, 0, 0},      {"UCI", 1 << 26, 0, 0},    {"DZE", 1 << 14, 0, 0},   {"UMA", 1 << 9, 0, 0},
        {"EL0PCTEN", 0, 1, 0},       {"EL0VCTEN", 0, 2, 0},     {"EL0VTEN", 0, 1 << 8, 0}, {"EL0PTEN", 0, 1 << 9, 0},
        {"PMUSERENR.EN", 0, 0, 1},   {"PMUSERENR.SW", 0, 0, 2}, {"PMUSERENR.CR", 0, 0, 4}, {"PMUSERENR.ER", 0, 0, 8},
        {"all", 1 << 15 | 1 << 26 | 1 << 14 | 1 << 9, 0x303, 15},
    };
    for (u64 k = 0; k < sizeof list / sizeof *list; k++) {
        write_register("cntkctl_el1", list[k].cntkctl);
        write_register("pmuserenr_el0", list[k].pmuserenr);
        for (int write = 0; write < 2; write++) {
            for (u64 i = 0x4000 | 3 << 11; i < (0x4000 | 4 << 11); i++) {
                const u32 *code = (write ? writes : reads) + i * 2;
                prepare((u64)code, EL0);
                run.sctlr = kernel_sctlr | list[k].sctlr;
                run.x[0] = 0;
                enter();
                // What is trapped or undefined without the control is in the sweep.
                if (run.esr >> 26 != 0x3c) continue;
                print("%s ", list[k].what);
                ended(write ? "write" : "read", EL0, i | 0x8000, code, 0);
            }
        }
        for (u64 i = 3 << 11; i < 4 << 11; i++) {
            const u32 *code = instructions + i * 2;
            prepare((u64)code, EL0);
            run.sctlr = kernel_sctlr | list[k].sctlr;
            run.x[0] = (u64)scratch + USER_DATA;
            enter();
            if (run.esr >> 26 != 0x3c) continue;
            print("%s ", list[k].what);
            ended("execute", EL0, i | 0x4000, code, 0);
        }
        prepare((u64)(states + (3 << 7 | 15 << 3 | 6) * 2), EL0);
        run.sctlr = kernel_sctlr | list[k].sctlr;
        enter();
        print("%s DAIFSet: esr %x spsr %x\n", list[k].what, run.esr, run.spsr);
        SNIPPET(daif_user, "mrs x0, daif\n mov x1, #0x3c0\n msr daif, x1\n mrs x2, daif\n msr daif, xzr");
        prepare((u64)daif_user, EL0);
        run.sctlr = kernel_sctlr | list[k].sctlr;
        enter();
        print("%s DAIF: esr %x spsr %x x0 %x x2 %x\n", list[k].what, run.esr, run.spsr, run.x[0], run.x[2]);
        SNIPPET(zero_user, "mrs x2, dczid_el0\n dc zva, x0");
        prepare((u64)zero_user, EL0);
        run.x[0] = (u64)scratch + USER_DATA + 5;
        run.sctlr = kernel_sctlr | list[k].sctlr;
        enter();
        print("%s DC ZVA: esr %x DCZID_EL0 %x\n", list[k].what, run.esr, run.x[2]);
    }
    write_register("cntkctl_el1", 0);
    write_register("pmuserenr_el0", 0);
}

int main(void) {
    sweep(EL1H);
    sweep(EL0);
    writable();
    control();
    controls();
    return 0;
}
