// Exceptions of every kind from EL0 and EL1, PSTATE, traps, software step, breakpoints and watchpoints, illegal returns,
// the exclusive monitor.
#include "machine.h"

static u64 data[64] __attribute__((aligned(4096)));

static const struct { const char *name; u64 spsr; } LEVELS[] = {{"EL0", EL0}, {"EL1t", EL1T}, {"EL1h", EL1H}};


// Instructions, each executed at each level: what they lead to.
#define INSTRUCTION(id, body) SNIPPET(i_##id, body);
#define LIST(X)                                                                                 \
    X(svc0, "svc #0") X(svc, "svc #0xabcd") X(brk, "brk #0x1234") X(hlt, "hlt #0x77")          \
    X(udf, ".inst 0x00000000") X(udf1, ".inst 0x0000ffff") X(unallocated, ".inst 0xffffffff")  \
    X(dcps1, ".inst 0xd4a00001") X(dcps2, ".inst 0xd4a00002") X(dcps3, ".inst 0xd4a00003")      \
    X(drps, ".inst 0xd6bf03e0") X(smc_bad, ".inst 0xd4000005") X(sp_bad, "mov x2, sp\n sub x2, x2, #8\n mov sp, x2\n ldr x3, [sp]") \
    X(sp_store, "mov x2, sp\n sub x2, x2, #4\n mov sp, x2\n str wzr, [sp, #-4]!")               \
    X(sp_pair, "mov x2, sp\n sub x2, x2, #1\n mov sp, x2\n ldp x3, x4, [sp]")                   \
    X(sp_add, "mov x2, sp\n sub x2, x2, #8\n mov sp, x2\n add x3, sp, #16")                     \
    X(pc1, "adr x2, .\n add x2, x2, #2\n br x2") X(pc2, "adr x2, .\n add x2, x2, #1\n ret x2")   \
    X(nowhere, "mov x2, #0x1000\n movk x2, #0x20, lsl #32\n br x2")                             \
    X(noncanonical, "movz x2, #0x0100, lsl #48\n br x2")                                        \
    X(noncanonical2, "movz x2, #0x8000, lsl #48\n br x2")                                       \
    X(read_nowhere, "mov x2, #0x1001\n movk x2, #0x20, lsl #32\n ldrb w3, [x2]")                \
    X(write_nowhere, "mov x2, #0x1001\n movk x2, #0x20, lsl #32\n strb w3, [x2]")               \
    X(read_noncanonical, "movz x2, #0x0100, lsl #48\n ldr x3, [x2]")                            \
    X(atomic_nowhere, "mov x2, #0x1000\n movk x2, #0x20, lsl #32\n .inst 0xf8230042")           \
    X(prefetch_nowhere, "mov x2, #0x1000\n movk x2, #0x20, lsl #32\n prfm pldl1keep, [x2]")     \
    X(fp, "fmov d0, x0\n fmov x1, d0") X(wfi_wfe, "sevl\n wfe\n sevl\n wfe") X(yield, "yield\n nop\n sev\n dgh") \
    X(barriers, "dsb sy\n dmb ish\n isb\n dsb nsh\n dmb oshld\n clrex")                         \
    X(eret_ish, "mrs x2, nzcv\n msr nzcv, x2")                                                  \
    X(unaligned_exclusive, "add x2, x0, #1\n ldxr x3, [x2]")                                    \
    X(unaligned_acquire, "add x2, x0, #1\n ldar x3, [x2]")                                      \
    X(unaligned_release, "add x2, x0, #2\n stlr w3, [x2]")                                      \
    X(unaligned_pair_exclusive, "add x2, x0, #8\n ldxp x3, x4, [x2]")                           \
    X(unaligned_atomic, "add x2, x0, #4\n .inst 0xf8230044")                                    \
    X(unaligned_cas, "add x2, x0, #4\n .inst 0xc8a37c44")                                       \
    X(unaligned_plain, "ldr x3, [x0, #1]\n add x2, x0, #4\n ldp x4, x5, [x2]\n ldr x6, [x0, #63]")
LIST(INSTRUCTION)

static void kinds(void) {
    static const struct { const char *name; const u32 *code; } list[] = {
#define ENTRY(id, body) {#id, i_##id},
        LIST(ENTRY)
    };
    for (u64 i = 0; i < sizeof list / sizeof *list; i++)
        for (int level = 0; level < 3; level++) {
            u64 spsr = LEVELS[level].spsr;
            u64 address = (u64)data + (spsr == EL0 ? USER_DATA : 0);
            at(spsr, list[i].code, address, 0);
            print("%s ", list[i].name);
            report(LEVELS[level].name, (u64)list[i].code);
            // Strict alignment, and without SP checks.
            prepare((u64)list[i].code, spsr);
            run.x[0] = address;
            run.sctlr = (kernel_sctlr | 2) & ~0x18ul;
            enter();
            print("%s, A, no SA ", list[i].name);
            report(LEVELS[level].name, (u64)list[i].code);
        }
}

// PSTATE in SPSR: every bit on its own, to every level, and what is left of it.
SNIPPET(only_brk, "nop");
SNIPPET(illegal, "nop\n nop");
static void returns(void) {
    for (u64 mode = 0; mode < 16; mode++) {
        prepare((u64)only_brk, mode | 0x3c0);
        run.pc = (u64)only_brk + (mode == 0 ? USER_TEXT : 0);
        enter();
        print("return to mode %x: vector %d esr %x spsr %x pc %s\n", mode, run.vector, run.esr, run.spsr & ~0x1000ul,
              run.pc == (u64)only_brk + 4 + (mode == 0 ? USER_TEXT : 0) ? "after"
              : run.pc == (u64)only_brk + (mode == 0 ? USER_TEXT : 0)   ? "same"
                                                                        : "else");
    }
    for (int level = 0; level < 3; level++)
        for (u64 bit = 6; bit < 32; bit++) {
            // IRQ, FIQ and SError are not pending; nRW has its own.
            prepare((u64)only_brk, LEVELS[level].spsr ^ 1ul << bit);
            enter();
            u64 kept = 0xf06003df | 1ul << 21 | 1 << 20;
            print("return to %s with bit %d: vector %d esr %x spsr %x\n", LEVELS[level].name, bit, run.vector, run.esr,
                  run.spsr & kept);
        }
    // SCTLR.SPAN, PAN on exceptions.
    for (int span = 0; span < 2; span++) {
        prepare((u64)only_brk, EL1H);
        run.sctlr = span ? kernel_sctlr : kernel_sctlr & ~(1ul << 23);
        enter();
        u64 pan;
        asm volatile("mrs %0, S3_0_C4_C2_3" : "=r"(pan));
        print("SPAN %d: spsr %x pan %x\n", (u64)span, run.spsr, pan);
        asm volatile(".inst 0xd500409f" ::: "memory"); // msr pan, #0
    }
    // With a PC that is not aligned, and PAC-less tags.
    prepare((u64)only_brk + 2, EL1H);
    enter();
    report("return to unaligned", (u64)only_brk);
    prepare((u64)only_brk | 0xabul << 56, EL1H);
    enter();
    report("return to tag", (u64)only_brk);
}

// MSR and MRS of PSTATE at EL1.
SNIPPET(pstate, "mrs x0, spsel\n mrs x1, currentel\n mrs x2, daif\n msr daifclr, #15\n mrs x3, daif\n msr daifset, #5\n"
                "mrs x4, daif\n msr spsel, #0\n mrs x5, spsel\n mov x6, sp\n msr spsel, #1\n mov x7, sp\n"
                "mrs x8, sp_el0\n movz x9, #0x1234, lsl #16\n msr sp_el0, x9\n msr spsel, #0\n mov x10, sp\n msr spsel, #1\n"
                "mov x11, #0xf0000000\n msr nzcv, x11\n mrs x12, nzcv\n msr nzcv, xzr\n mrs x13, nzcv\n"
                ".inst 0xd500419f\n mrs x14, S3_0_C4_C2_3\n .inst 0xd500409f\n mrs x15, S3_0_C4_C2_3\n"
                ".inst 0xd500417f\n mrs x16, S3_0_C4_C2_4\n .inst 0xd500407f\n mrs x17, S3_0_C4_C2_4\n"
                "mov x18, #0x3c0\n msr daif, x18\n mrs x19, daif\n mov x20, #-1\n msr S3_0_C4_C2_3, x20\n"
                "mrs x21, S3_0_C4_C2_3\n msr S3_0_C4_C2_3, xzr");
SNIPPET(sp_el0_itself, "mrs x0, sp_el0");
SNIPPET(sp_el0_write, "msr sp_el0, x0");
SNIPPET(spsel_user, "msr spsel, #0");
SNIPPET(spsel_user_read, "mrs x0, spsel");
static void process_state(void) {
    at(EL1H, pstate, 0, 0);
    report("PSTATE", (u64)pstate);
    for (u64 i = 0; i < 22; i++)
        print("PSTATE x%d: %x\n", i, run.x[i]);
    at(EL1T, sp_el0_itself, 0, 0);
    report("SP_EL0 at EL1t", (u64)sp_el0_itself);
    at(EL1T, sp_el0_write, 0, 0);
    report("SP_EL0 written at EL1t", (u64)sp_el0_write);
    at(EL0, spsel_user, 0, 0);
    report("SPSel at EL0", (u64)spsel_user);
    at(EL0, spsel_user_read, 0, 0);
    report("SPSel read at EL0", (u64)spsel_user_read);
}

// CPACR.FPEN, SCTLR.nTWI and nTWE.
SNIPPET(fp_move, "fmov d0, x0");
SNIPPET(fp_vector, "add v0.4s, v1.4s, v2.4s");
SNIPPET(fp_load, "ldr q0, [x0]");
SNIPPET(fp_control, "mrs x1, fpcr");
SNIPPET(fp_status, "msr fpsr, x1");
SNIPPET(fp_undefined, ".inst 0x1e3fffff");
SNIPPET(wfi, "wfi");
SNIPPET(wfe, "wfe");
SNIPPET(wfe_event, "sevl\n wfe");
static void traps(void) {
    static const struct { const char *name; const u32 *code; } fp[] = {
        {"move", fp_move}, {"vector", fp_vector}, {"load", fp_load}, {"fpcr", fp_control},
        {"fpsr", fp_status}, {"undefined", fp_undefined},
    };
    for (u64 fpen = 0; fpen < 4; fpen++) {
        write_register("cpacr_el1", fpen << 20);
        for (u64 i = 0; i < sizeof fp / sizeof *fp; i++)
            for (int level = 0; level < 3; level += 2) {
                u64 spsr = LEVELS[level].spsr;
                at(spsr, fp[i].code, (u64)data + (spsr == EL0 ? USER_DATA : 0), 0);
                print("FPEN %d %s ", fpen, fp[i].name);
                report(LEVELS[level].name, (u64)fp[i].code);
            }
    }
    write_register("cpacr_el1", 3 << 20);
    for (u64 bits = 0; bits < 4; bits++) {
        u64 control = (kernel_sctlr & ~(5ul << 16)) | (bits & 1) << 16 | (bits >> 1) << 18;
        if (!(bits & 1)) {
            at(EL0, wfi, 0, 0);
            prepare((u64)wfi, EL0);
            run.sctlr = control;
            enter();
            print("nTWI nTWE %d ", bits);
            report("WFI", (u64)wfi);
        }
        if (!(bits & 2)) {
            prepare((u64)wfe, EL0);
            run.sctlr = control;
            asm volatile("sevl\n wfe" ::: "memory"); // no event is left over
            enter();
            print("nTWI nTWE %d ", bits);
            // Whether the event register is set by the exception return is not comparable: only the trap is.
            if (run.esr >> 26 == 1) report("WFE", (u64)wfe);
            else print("WFE: vector %d class %x\n", run.vector, run.esr >> 26);
        }
        prepare((u64)wfe_event, EL0);
        run.sctlr = control | 1 << 18;
        enter();
        print("nTWI nTWE %d ", bits);
        report("SEVL, WFE", (u64)wfe_event);
    }
}

// Software step.
SNIPPET(step, "add x0, x0, #1\n add x0, x0, #1\n add x0, x0, #1\n b 1f\n nop\n1: svc #1\n nop");
SNIPPET(step_exclusive, "ldxr x2, [x0]\n stxr w3, x2, [x0]");
SNIPPET(step_fault, "ldr x2, [x1]");
SNIPPET(step_brk, "brk #5");
SNIPPET(step_undefined, ".inst 0");
static void steps(void) {
    // A reset locks it.
    print("OSLSR_EL1 at reset: %x\n", read_register("oslsr_el1"));
    write_register("oslar_el1", 0);
    write_register("mdscr_el1", 1);
    for (int level = 0; level < 3; level += 2) {
        u64 target = LEVELS[level].spsr & ~0x200ul;
        for (u64 kde = 0; kde < 2; kde++)
            for (u64 ss = 0; ss < 2; ss++) {
                write_register("mdscr_el1", 1 | kde << 13);
                at(target | ss << 21, step, 0, 0);
                print("step %s kde %d ss %d x0 %d: vector %d esr %x elr +%x spsr %x\n", LEVELS[level].name, kde, ss,
                      run.x[0], run.vector, run.esr, run.pc - (u64)step - (level == 0 ? USER_TEXT : 0), run.spsr);
            }
        write_register("mdscr_el1", 1 | 1 << 13);
        // A walk through the program, step by step.
        at(target | 1 << 21, step, 0, 0);
        for (u64 n = 0; n < 8; n++) {
            print("step %s walk %d: x0 %d esr %x elr +%x spsr %x\n", LEVELS[level].name, n, run.x[0], run.esr,
                  run.pc - (u64)step - (level == 0 ? USER_TEXT : 0), run.spsr);
            u64 class = run.esr >> 26;
            if (class != 0x32 && class != 0x33) break;
            run.spsr |= 1 << 21;
            enter();
        }
        // Masked by D: no step at EL1.
        at(target | 0x200 | 1 << 21, step, 0, 0);
        print("step %s masked: x0 %d esr %x spsr %x\n", LEVELS[level].name, run.x[0], run.esr, run.spsr);
        static const struct { const char *name; const u32 *code; } list[] = {
            {"exclusive", step_exclusive}, {"fault", step_fault}, {"brk", step_brk}, {"undefined", step_undefined}};
        for (u64 i = 0; i < 4; i++) {
            at(target | 1 << 21, list[i].code, (u64)data + (level == 0 ? USER_DATA : 0), 0x2000000000);
            print("step of %s ", list[i].name);
            report(LEVELS[level].name, (u64)list[i].code);
        }
        // With the OS lock, none.
        write_register("oslar_el1", 1);
        at(target | 1 << 21, step, 0, 0);
        print("step %s locked: x0 %d esr %x spsr %x oslsr %x\n", LEVELS[level].name, run.x[0], run.esr, run.spsr,
              read_register("oslsr_el1"));
        write_register("oslar_el1", 0);
    }
    write_register("mdscr_el1", 0);
}

SNIPPET(watched, "ldrb w2, [x0]\n ldr x2, [x0]\n ldp x2, x3, [x0]\n strb w2, [x1]\n str x2, [x1]\n stp x2, x3, [x1]");
SNIPPET(watched_at, "ldr x2, [x0]");
SNIPPET(watched_write, "str x2, [x0]");
SNIPPET(watched_other, "ldr q0, [x0]\n nop\n prfm pldl1keep, [x0]\n dc cvac, x0");
SNIPPET(watched_user, "ldtr x2, [x0]");
SNIPPET(watched_atomic, ".inst 0xf8230042");
SNIPPET(broken, "nop\n nop\n nop\n nop");
static void breakpoints(void) {
    for (int level = 0; level < 3; level += 2) {
        u64 target = LEVELS[level].spsr & ~0x200ul;
        u64 text = level == 0 ? USER_TEXT : 0, memory = level == 0 ? USER_DATA : 0;
        write_register("mdscr_el1", 1 << 15 | 1 << 13);
        for (u64 pmc = 0; pmc < 4; pmc++) {
            write_register("dbgbvr0_el1", (u64)broken + 8 + text);
            write_register("dbgbcr0_el1", 1 | pmc << 1 | 0xf << 5);
            at(target, broken, 0, 0);
            print("breakpoint PMC %d ", pmc);
            report(LEVELS[level].name, (u64)broken);
            // At the first instruction.
            at(target, broken + 2, 0, 0);
            print("breakpoint at once PMC %d ", pmc);
            report(LEVELS[level].name, (u64)broken);
        }
        // Linked to a context, and a context alone.
        for (u64 context = 6; context < 8; context++) {
            write_register("contextidr_el1", context);
            write_register("dbgbvr5_el1", 7);
            write_register("dbgbcr5_el1", 1 | 3 << 20 | 3 << 1 | 0xf << 5);
            write_register("dbgbcr0_el1", 1 | 3 << 1 | 0xf << 5 | 5 << 16 | 1 << 20);
            at(target, broken, 0, 0);
            print("breakpoint linked %d ", context);
            report(LEVELS[level].name, (u64)broken);
        }
        write_register("dbgbcr5_el1", 0);
        write_register("dbgbcr0_el1", 0);
        // MDE off; masked; KDE off.
        write_register("dbgbcr0_el1", 1 | 3 << 1 | 0xf << 5);
        at(target | 0x200, broken, 0, 0);
        print("breakpoint masked ");
        report(LEVELS[level].name, (u64)broken);
        write_register("mdscr_el1", 1 << 15);
        at(target, broken, 0, 0);
        print("breakpoint without KDE ");
        report(LEVELS[level].name, (u64)broken);
        write_register("mdscr_el1", 1 << 13);
        at(target, broken, 0, 0);
        print("breakpoint without MDE ");
        report(LEVELS[level].name, (u64)broken);
        write_register("dbgbcr0_el1", 0);
        // Watchpoints: which accesses, which bytes.
        write_register("mdscr_el1", 1 << 15 | 1 << 13);
        for (u64 lsc = 1; lsc < 4; lsc++)
            for (u64 pac = 1; pac < 4; pac++) {
                write_register("dbgwvr0_el1", (u64)data + 0x40 + memory);
                write_register("dbgwcr0_el1", 1 | pac << 1 | lsc << 3 | 0xff << 5);
                at(target, watched, (u64)data + 0x40 + memory, (u64)data + 0x40 + memory);
                print("watchpoint LSC %d PAC %d ", lsc, pac);
                report(LEVELS[level].name, (u64)watched);
            }
        for (u64 bas = 0; bas < 8; bas++)
            for (u64 offset = 0x38; offset < 0x49; offset += 1) {
                write_register("dbgwcr0_el1", 1 | 3 << 1 | 3 << 3 | (1 << bas) << 5);
                u64 to = (u64)data + offset + memory;
                at(target, bas & 1 ? watched_write : watched_at, to, 0);
                print("watchpoint BAS %d offset %x %s: vector %d esr %x\n", bas, offset, LEVELS[level].name, run.vector,
                      run.esr);
            }
        for (u64 mask = 3; mask < 9; mask++)
            for (u64 offset = 0; offset < 0x200; offset += 0x38) {
                write_register("dbgwvr0_el1", ((u64)data + 0x100 + memory) & ~((1ul << mask) - 1));
                write_register("dbgwcr0_el1", 1 | 3 << 1 | 3 << 3 | 0xff << 5 | mask << 24);
                at(target, watched_at, (u64)data + offset + memory, 0);
                print("watchpoint MASK %d offset %x %s: vector %d esr %x\n", mask, offset, LEVELS[level].name,
                      run.vector, run.esr);
            }
        write_register("dbgwvr0_el1", (u64)data + 0x40 + memory);
        write_register("dbgwcr0_el1", 1 | 3 << 1 | 3 << 3 | 0xff << 5);
        at(target, watched_atomic, (u64)data, (u64)data);
        prepare((u64)watched_atomic, target);
        run.x[2] = (u64)data + 0x40 + memory;
        enter();
        print("watchpoint atomic ");
        report(LEVELS[level].name, (u64)watched_atomic);
        at(target, watched_other + 1, (u64)data + 0x40 + memory, 0);
        if (level != 0) {
            print("watchpoint prefetch, clean ");
            report(LEVELS[level].name, (u64)watched_other);
            write_register("dbgwvr0_el1", (u64)data + 0x40 + USER_DATA);
            for (u64 pac = 1; pac < 4; pac++) {
                write_register("dbgwcr0_el1", 1 | pac << 1 | 3 << 3 | 0xff << 5);
                at(target, watched_user, (u64)data + 0x40 + USER_DATA, 0);
                print("watchpoint LDTR PAC %d ", pac);
                report(LEVELS[level].name, (u64)watched_user);
            }
        }
        write_register("dbgwcr0_el1", 0);
    }
    write_register("mdscr_el1", 0);
    write_register("contextidr_el1", 0);
}

// The monitor: cleared by ERET and exception, CLREX, stores by the same processor elsewhere.
SNIPPET(exclusive_ok, "ldxr x2, [x0]\n add x2, x2, #1\n stxr w3, x2, [x0]");
SNIPPET(exclusive_svc, "ldxr x2, [x0]\n svc #0\n stxr w3, x2, [x0]");
SNIPPET(exclusive_clrex, "ldxr x2, [x0]\n clrex\n stxr w3, x2, [x0]");
SNIPPET(exclusive_none, "clrex\n stxr w3, x2, [x0]");
SNIPPET(exclusive_twice, "ldxr x2, [x0]\n stxr w3, x2, [x0]\n stxr w4, x2, [x0]");
SNIPPET(exclusive_other, "ldxr x2, [x0]\n stxr w3, x2, [x0, #0]\n ldxr x4, [x0]\n ldxr x5, [x1]\n stxr w6, x2, [x1]");
SNIPPET(exclusive_pair, "ldxp x2, x4, [x0]\n stlxp w3, x2, x4, [x0]");
static void exclusives(void) {
    for (int level = 0; level < 3; level += 2) {
        u64 target = LEVELS[level].spsr;
        u64 address = (u64)data + (level == 0 ? USER_DATA : 0);
        static const struct { const char *name; const u32 *code; } list[] = {
            {"kept", exclusive_ok}, {"clrex", exclusive_clrex}, {"none", exclusive_none}, {"twice", exclusive_twice},
            {"other", exclusive_other}, {"pair", exclusive_pair}};
        for (u64 i = 0; i < sizeof list / sizeof *list; i++) {
            data[0] = 0;
            at(target, list[i].code, address, address + 16);
            print("exclusive %s %s: esr %x w3 %x x4 %x x6 %x memory %x\n", list[i].name, LEVELS[level].name, run.esr,
                  run.x[3], run.x[4], run.x[6], data[0]);
        }
        at(target, exclusive_svc, address, 0);
        enter();
        print("exclusive over ERET %s: esr %x w3 %x\n", LEVELS[level].name, run.esr, run.x[3]);
    }
}

// HVC and SMC: no call of that number. HVC and SMC at EL0 are in `kinds`.
SNIPPET(hvc, "hvc #0");
SNIPPET(hvc1, "hvc #0x123");
SNIPPET(smc, "smc #0");
static void calls(void) {
    static const u64 numbers[] = {0xc3000001, 0x0, 0xffffffff, 0x8400ffff, 0xc400ffff, 0x80000000, 0xc3000000, 0x86000000};
    for (u64 i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (int k = 0; k < 3; k++) {
            const u32 *code = k == 0 ? hvc : k == 1 ? smc : hvc1;
            at(EL1H, code, numbers[i], 7);
            print("call %x kind %d: x0 %x x1 %x esr %x elr +%x\n", numbers[i], (u64)k, run.x[0], run.x[1], run.esr,
                  run.pc - (u64)code);
        }
    at(EL0, hvc, 0x84000000, 0);
    report("HVC at EL0", (u64)hvc);
    at(EL0, smc, 0x84000000, 0);
    report("SMC at EL0", (u64)smc);
    // Illegal execution state comes first.
    at(EL1H | 1 << 20, hvc, 0x84000000, 0);
    report("HVC with IL", (u64)hvc);
}

int main(void) {
    for (int i = 0; i < 64; i++) data[i] = 0x0101010101010101ul * i;
    kinds();
    returns();
    process_state();
    traps();
    steps();
    breakpoints();
    exclusives();
    calls();
    return 0;
}
