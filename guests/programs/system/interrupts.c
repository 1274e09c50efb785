// Interrupts by the GICv3's system registers, generic timers, the cycle counter, power states of processors.
#include "machine.h"

#define GICD 0x08000000ul
#define GICR 0x080a0000ul
#define MEMORY32(address) (*(volatile u32 *)(address))
#define MEMORY8(address) (*(volatile u8 *)(address))
#define IAR "S3_0_C12_C12_0"
#define EOIR "S3_0_C12_C12_1"
#define HPPIR "S3_0_C12_C12_2"
#define BPR "S3_0_C12_C12_3"
#define CTLR "S3_0_C12_C12_4"
#define SRE "S3_0_C12_C12_5"
#define IGRPEN "S3_0_C12_C12_7"
#define PMR "S3_0_C4_C6_0"
#define RPR "S3_0_C12_C11_3"
#define DIR "S3_0_C12_C11_1"
#define SGI1R "S3_0_C12_C11_5"
#define AP1R0 "S3_0_C12_C9_0"

static void set_up(void) {
    MEMORY32(GICD) = 0x12; // affinity routing, group 1
    // This processor's redistributor is awake.
    MEMORY32(GICR + 0x14) = 0;
    while (MEMORY32(GICR + 0x14) & 4) {
    }
    MEMORY32(GICR + 0x10080) = 0xffffffff; // all in group 1
    MEMORY32(GICR + 0x10100) = 0xffff;     // SGIs
    for (u64 i = 0; i < 32; i++) MEMORY8(GICR + 0x10400 + i) = 0xa0;
    write_register(SRE, 7);
    write_register(PMR, 0xff);
    write_register(BPR, 0);
    write_register(CTLR, 0);
    write_register(IGRPEN, 1);
}

static void priority(u64 interrupt, u64 value) { MEMORY8(GICR + 0x10400 + interrupt) = value; }
static void send(u64 interrupt) { write_register(SGI1R, interrupt << 24 | 1); }
// What the interface says now; ISR_EL1.
static void state(const char *label) {
    print("%s: isr %x hppir %x rpr %x ap1r %x pending %x active %x\n", label, read_register("isr_el1"),
          read_register(HPPIR), read_register(RPR), read_register(AP1R0), (u64)MEMORY32(GICR + 0x10200) & 0xffff,
          (u64)MEMORY32(GICR + 0x10300) & 0xffff);
}

SNIPPET(spin, "mov x2, #0x4000\n1: subs x2, x2, #1\n b.ne 1b");
SNIPPET(unmask, "msr daifclr, #2\n nop\n nop\n mov x2, #0x4000\n1: subs x2, x2, #1\n b.ne 1b");
SNIPPET(wait, "wfi");

static void sgi(void) {
    state("nothing");
    send(3);
    state("SGI 3 sent");
    static const struct { const char *name; u64 spsr; } LEVELS[] = {
        {"EL0", EL0}, {"EL1t", EL1T}, {"EL1h", EL1H}};
    for (int level = 0; level < 3; level++)
        for (u64 mask = 0; mask < 16; mask++) {
            at((LEVELS[level].spsr & ~0x3c0ul) | mask << 6, spin, 0, 0);
            // An interrupt is taken somewhere; how far it came is not comparable.
            print("SGI DAIF %x %s: vector %d spsr %x\n", mask, LEVELS[level].name, run.vector,
                  run.spsr & ~0xf0000000ul);
        }
    at(EL1H, unmask, 0, 0);
    print("unmasked by DAIFClr: vector %d spsr %x\n", run.vector, run.spsr & ~0xf0000000ul);
    u64 iar = read_register(IAR);
    print("acknowledged: %x\n", iar);
    state("active");
    at(EL1H & ~0x80ul, spin, 0, 0);
    print("active, unmasked: vector %d\n", run.vector);
    write_register(EOIR, iar);
    state("ended");
    print("spurious: %x\n", read_register(IAR));

    // Priorities and masks.
    for (u64 mask = 0; mask < 0x100; mask += 8) {
        priority(1, 0x80);
        send(1);
        write_register(PMR, mask);
        print("PMR %x reads %x: isr %x hppir %x iar %x\n", mask, read_register(PMR), read_register("isr_el1"),
              read_register(HPPIR), 0ul);
        write_register(PMR, 0xff);
        u64 got = read_register(IAR);
        write_register(EOIR, got);
    }
    // The highest comes first; preemption by binary point.
    for (u64 point = 0; point < 8; point++) {
        write_register(BPR, point);
        print("BPR %d: reads %x\n", point, read_register(BPR));
        for (u64 n = 0; n < 8; n++) priority(n, 0xf0 - n * 0x18);
        send(2);
        u64 first = read_register(IAR);
        for (u64 n = 0; n < 8; n++) {
            send(n);
            print("BPR %d over SGI 2 SGI %d: isr %x", point, n, read_register("isr_el1"));
            u64 second = read_register(IAR);
            print(" iar %x rpr %x ap1r %x\n", second, read_register(RPR), read_register(AP1R0));
            if (second < 1020) write_register(EOIR, second);
        }
        write_register(EOIR, first);
        for (u64 n = 0; n < 8; n++) {
            u64 rest = read_register(IAR);
            print("BPR %d rest %d: %x rpr %x\n", point, n, rest, read_register(RPR));
            if (rest < 1020) write_register(EOIR, rest);
        }
    }
    write_register(BPR, 0);
    // EOImode 1: drop and deactivate are two things.
    write_register(CTLR, 2);
    print("CTLR: %x\n", read_register(CTLR) & 3);
    for (u64 n = 0; n < 8; n++) priority(n, 0xa0);
    send(5);
    iar = read_register(IAR);
    state("EOImode 1 acknowledged");
    send(5);
    state("EOImode 1 sent again");
    write_register(EOIR, iar);
    state("EOImode 1 dropped");
    print("EOImode 1 iar while active: %x\n", read_register(IAR));
    write_register(DIR, iar);
    state("EOImode 1 deactivated");
    iar = read_register(IAR);
    write_register(EOIR, iar);
    write_register(DIR, iar);
    state("EOImode 1 end");
    write_register(CTLR, 0);
    // Groups off.
    send(6);
    write_register(IGRPEN, 0);
    state("group off");
    print("group off iar: %x\n", read_register(IAR));
    write_register(IGRPEN, 1);
    state("group on");
    iar = read_register(IAR);
    write_register(EOIR, iar);
    // Disabled, then enabled.
    MEMORY32(GICR + 0x10180) = 1 << 7;
    send(7);
    state("disabled");
    MEMORY32(GICR + 0x10100) = 1 << 7;
    state("enabled");
    iar = read_register(IAR);
    write_register(EOIR, iar);
    // To no processor, to all but itself.
    write_register(SGI1R, 4ul << 24 | 2);
    state("to the other");
    write_register(SGI1R, 4ul << 24 | 1ul << 40);
    state("to all others");
    write_register(SGI1R, 4ul << 24 | 1ul << 16 | 1);
    state("to another cluster");
    // Pending by the redistributor, cleared again.
    MEMORY32(GICR + 0x10200) = 1 << 9;
    state("pending set");
    MEMORY32(GICR + 0x10280) = 1 << 9;
    state("pending cleared");
    MEMORY32(GICR + 0x10300) = 1 << 9;
    state("active set");
    send(9);
    state("active and pending");
    MEMORY32(GICR + 0x10380) = 1 << 9;
    state("active cleared");
    iar = read_register(IAR);
    print("iar: %x\n", iar);
    write_register(EOIR, iar);
    // WFI ends with a masked interrupt pending.
    send(10);
    at(EL1H, wait, 0, 0);
    print("WFI with a masked interrupt: vector %d class %x\n", run.vector, run.esr >> 26);
    iar = read_register(IAR);
    write_register(EOIR, iar);
}

#define TIMERS(X) X(v, 27, "cntvct_el0") X(p, 30, "cntpct_el0")

static void timers(void) {
    print("frequency: %x\n", read_register("cntfrq_el0"));
    MEMORY32(GICR + 0x10100) = 1u << 27 | 1u << 30;
#define TIMER(t, interrupt, counter)                                                                              \
    do {                                                                                                          \
        write_register("cnt" #t "_ctl_el0", 0);                                                                   \
        for (u64 control = 0; control < 8; control++)                                                             \
            for (u64 due = 0; due < 2; due++) {                                                                   \
                u64 now = read_register(counter);                                                                 \
                write_register("cnt" #t "_cval_el0", due ? now : now + (1ul << 40));                              \
                write_register("cnt" #t "_ctl_el0", control);                                                     \
                at(EL1H & ~0x80ul, spin, 0, 0);                                                                   \
                print("timer " #t " control %x due %d: ctl %x vector %d iar ", control, due,                      \
                      read_register("cnt" #t "_ctl_el0"), run.vector);                                            \
                u64 iar = read_register(IAR);                                                                     \
                print("%x pending %x", iar, (u64)MEMORY32(GICR + 0x10200) >> 16);                                 \
                write_register("cnt" #t "_ctl_el0", 0);                                                           \
                print(" then %x\n", (u64)MEMORY32(GICR + 0x10200) >> 16);                                         \
                if (iar < 1020) write_register(EOIR, iar);                                                        \
            }                                                                                                     \
        /* TVAL: signed, 32 bits. */                                                                              \
        for (u64 i = 0; i < 6; i++) {                                                                             \
            static const u64 values[] = {0, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x123456789};        \
            u64 before = read_register(counter);                                                                  \
            write_register("cnt" #t "_tval_el0", values[i]);                                                      \
            u64 compare = read_register("cnt" #t "_cval_el0");                                                    \
            u64 after = read_register(counter);                                                                   \
            u64 offset = (u64)(long)(int)values[i];                                                               \
            print("timer " #t " TVAL %x: in range %d\n", values[i],                                               \
                  (u64)(compare - offset - before <= after - before));                                            \
            write_register("cnt" #t "_ctl_el0", 3);                                                               \
            print("timer " #t " TVAL %x: ctl %x\n", values[i], read_register("cnt" #t "_ctl_el0"));               \
            write_register("cnt" #t "_ctl_el0", 0);                                                               \
        }                                                                                                         \
        /* WFI until it comes. */                                                                                 \
        u64 start = read_register(counter), ticks = read_register("cntfrq_el0") / 500;                            \
        write_register("cnt" #t "_cval_el0", start + ticks);                                                      \
        write_register("cnt" #t "_ctl_el0", 1);                                                                   \
        at(EL1H, wait, 0, 0);                                                                                     \
        print("timer " #t " WFI: class %x waited %d", run.esr >> 26,                                              \
              (u64)(read_register(counter) - start >= ticks));                                                    \
        u64 iar = read_register(IAR);                                                                             \
        print(" iar %x\n", iar);                                                                                  \
        write_register("cnt" #t "_ctl_el0", 0);                                                                   \
        write_register(EOIR, iar);                                                                                \
    } while (0);
    TIMERS(TIMER)
    u64 last = read_register("cntvct_el0"), back = 0;
    for (int i = 0; i < 1000; i++) {
        u64 now = read_register("cntvct_el0");
        back += now < last;
        last = now;
    }
    print("counter went back: %d\n", back);
}

static void cycles(void) {
    write_register("pmcr_el0", 1 << 6 | 1 << 2 | 1);
    write_register("pmccfiltr_el0", 0);
    write_register("pmcntenset_el0", 1ul << 31);
    u64 a = read_register("pmccntr_el0");
    for (volatile int i = 0; i < 20000; i++) {
    }
    u64 b = read_register("pmccntr_el0");
    print("cycles counted: %d\n", (u64)(b > a));
    write_register("pmcr_el0", 1 << 6);
    a = read_register("pmccntr_el0");
    for (volatile int i = 0; i < 20000; i++) {
    }
    print("cycles stopped: %d\n", (u64)(read_register("pmccntr_el0") == a));
    write_register("pmcr_el0", 1 << 6 | 1);
    write_register("pmcntenclr_el0", 1ul << 31);
    a = read_register("pmccntr_el0");
    for (volatile int i = 0; i < 20000; i++) {
    }
    print("cycles disabled: %d\n", (u64)(read_register("pmccntr_el0") == a));
    write_register("pmcntenset_el0", 1ul << 31);
    write_register("pmccfiltr_el0", 1ul << 31);
    a = read_register("pmccntr_el0");
    for (volatile int i = 0; i < 20000; i++) {
    }
    print("cycles filtered at EL1: %d\n", (u64)(read_register("pmccntr_el0") == a));
    at(EL0, spin, 0, 0);
    print("cycles at EL0: %d\n", (u64)(read_register("pmccntr_el0") != a));
    write_register("pmccfiltr_el0", 0);
    write_register("pmcr_el0", 1 << 6 | 1 << 2 | 1);
    print("cycles after reset: %d\n", (u64)(read_register("pmccntr_el0") < 1ul << 40));
    // Overflow of 64 bits: status and interrupt.
    write_register("pmovsclr_el0", 1ul << 31);
    write_register("pmintenset_el1", 1ul << 31);
    MEMORY32(GICR + 0x10100) = 1u << 23;
    write_register("pmccntr_el0", ~0ul - 100);
    for (volatile int i = 0; i < 20000; i++) {
    }
    print("cycles overflow: %x\n", read_register("pmovsclr_el0"));
    u64 iar = read_register(IAR);
    print("cycles interrupt: %x\n", iar);
    write_register("pmovsclr_el0", 1ul << 31);
    print("cycles overflow cleared: %x pending %x\n", read_register("pmovsclr_el0"),
          (u64)MEMORY32(GICR + 0x10200) >> 23 & 1);
    if (iar < 1020) write_register(EOIR, iar);
    write_register("pmintenclr_el1", 1ul << 31);
    write_register("pmcr_el0", 0);
}

extern u8 secondary[];
static volatile u64 report_of_secondary[8] __attribute__((aligned(64)));

static void power(void) {
    print("PSCI version: %x\n", call(0x84000000, 0, 0, 0));
    static const u64 functions[] = {0x84000000, 0x84000001, 0xc4000001, 0x84000002, 0x84000003, 0xc4000003, 0x84000004,
                                    0xc4000004, 0x84000005, 0x84000006, 0x84000008, 0x84000009, 0x8400000a, 0x8400000b,
                                    0x8400000c, 0x8400000f, 0x84000010, 0x84000012, 0xc4000012, 0x80000000, 0xc400000a};
    for (u64 i = 0; i < sizeof functions / sizeof *functions; i++)
        print("PSCI features of %x: %x\n", functions[i], call(0x8400000a, functions[i], 0, 0));
    print("PSCI affinity of self: %x\n", call(0xc4000004, 0, 0, 0));
    print("PSCI affinity of other: %x\n", call(0xc4000004, 1, 0, 0));
    print("PSCI affinity of nobody: %x\n", call(0xc4000004, 2, 0, 0));
    print("PSCI affinity of high nobody: %x\n", call(0xc4000004, 0x100, 0, 0));
    print("PSCI affinity level 1: %x\n", call(0xc4000004, 0, 1, 0));
    print("PSCI affinity level 4: %x\n", call(0xc4000004, 0, 4, 0));
    print("PSCI on of self: %x\n", call(0xc4000003, 0, (u64)secondary, 0));
    print("PSCI on of nobody: %x\n", call(0xc4000003, 5, (u64)secondary, 0));
    print("PSCI on at nothing: %x\n", call(0xc4000003, 1, (u64)secondary + 2, 0));
    for (int turn = 0; turn < 3; turn++) {
        report_of_secondary[0] = 0;
        sync();
        print("PSCI on: %x\n", call(0xc4000003, 1, (u64)secondary, (u64)report_of_secondary));
        while (!report_of_secondary[0]) {
        }
        while (call(0xc4000004, 1, 0, 0) != 1) {
        }
        print("secondary %d: el %x daif %x m %x mpidr %x spsel %x fpen %x\n", (u64)turn, report_of_secondary[1],
              report_of_secondary[2], report_of_secondary[3] & 0x1005, report_of_secondary[4],
              report_of_secondary[5], report_of_secondary[6] >> 20 & 3);
    }
    print("PSCI reset2 of no kind: %x\n", call(0xc4000012, 5, 0, 0));
}

int main(void) {
    set_up();
    sgi();
    timers();
    cycles();
    power();
    return 0;
}
