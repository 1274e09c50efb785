// Pointer authentication by its properties, which hold for every algorithm: round trips, failures, keys, where codes are.
// Which code a pointer gets is implementation defined and never printed.
#include "machine.h"

#define PAC(name, word) SNIPPET(name, ".inst " #word)
PAC(pacia, 0xdac10020); PAC(pacib, 0xdac10420); PAC(pacda, 0xdac10820); PAC(pacdb, 0xdac10c20);
PAC(autia, 0xdac11020); PAC(autib, 0xdac11420); PAC(autda, 0xdac11820); PAC(autdb, 0xdac11c20);
PAC(xpaci, 0xdac143e0); PAC(xpacd, 0xdac147e0);
SNIPPET(pacga, ".inst 0x9ac13000"); // pacga x0, x0, x1
SNIPPET(retaa, "mov x30, x0\n .inst 0xd65f0bff");
SNIPPET(braa, ".inst 0xd71f0801"); // braa x0, x1
SNIPPET(blraa, ".inst 0xd73f0801");
SNIPPET(ldraa, ".inst 0xf8200400"); // ldraa x0, [x0]
SNIPPET(landing, "nop");

static const u32 *const SIGN[] = {pacia, pacib, pacda, pacdb};
static const u32 *const CHECK[] = {autia, autib, autda, autdb};

static u64 tcr_now, sctlr_now;
static u64 apply(const u32 *code, u64 x0, u64 x1) {
    prepare((u64)code, EL1H);
    run.tcr = tcr_now;
    run.sctlr = sctlr_now;
    run.x[0] = x0;
    run.x[1] = x1;
    enter();
    return run.x[0];
}

static void keys(u64 seed) {
    for (int half = 0; half < 2; half++) {
        u64 k = random64() ^ seed;
        if (half) {
            write_register("S3_0_C2_C1_1", k); write_register("S3_0_C2_C1_3", k * 3);
            write_register("S3_0_C2_C2_1", k * 5); write_register("S3_0_C2_C2_3", k * 7);
            write_register("S3_0_C2_C3_1", k * 9);
        } else {
            write_register("S3_0_C2_C1_0", k); write_register("S3_0_C2_C1_2", k * 3);
            write_register("S3_0_C2_C2_0", k * 5); write_register("S3_0_C2_C2_2", k * 7);
            write_register("S3_0_C2_C3_0", k * 9);
        }
    }
}

int main(void) {
    u64 isar1 = read_register("id_aa64isar1_el1");
    print("authentication: %d\n", (u64)((isar1 >> 4 & 0xff) != 0));
    if (!(isar1 >> 4 & 0xff)) return 0;
    keys(0);
    const u64 enable = 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13;
    sctlr_now = kernel_sctlr | (enable & 0xffffffff);
    for (u64 controls = 0; controls < 16; controls++) {
        u64 tbi = controls & 3, tbid = controls >> 2;
        tcr_now = kernel_tcr | tbi << 37 | tbid << 51;
        for (u64 upper = 0; upper < 2; upper++)
            for (u64 key = 0; key < 4; key++) {
                u64 changed = 0, trips = 0, failed = 0, other_modifier = 0, other_key = 0, stripped = 0, sign_kept = 0;
                u64 error_bits = 0, hits = 0;
                for (int n = 0; n < 40; n++) {
                    u64 pointer = random64() & 0x7fffffffff;
                    if (upper) pointer |= ~0x7ffffffffful;
                    if (tbi >> upper & 1) pointer ^= (random64() & 0xff) << 56;
                    u64 modifier = random64();
                    u64 is_signed = apply(SIGN[key], pointer, modifier);
                    changed |= is_signed ^ pointer;
                    sign_kept += (is_signed >> 55 & 1) == upper;
                    trips += apply(CHECK[key], is_signed, modifier) == pointer;
                    // Stripped: the extension, with the tag where it is ignored.
                    stripped += apply(key < 2 ? xpaci : xpacd, is_signed, modifier) == pointer;
                    u64 wrong = apply(CHECK[key], is_signed ^ 1ul << 54, modifier);
                    failed += wrong != pointer;
                    error_bits |= wrong ^ pointer;
                    other_modifier += apply(CHECK[key], is_signed, modifier + 1) != pointer;
                    other_key += apply(CHECK[(key + 1) & 3], is_signed, modifier) != pointer;
                    hits += apply(SIGN[key], pointer, modifier) == is_signed;
                }
                print("tbi %x tbid %x upper %d key %d: changed %x sign %d trips %d stripped %d failed %d error %x same %d",
                      tbi, tbid, upper, key, changed, sign_kept, trips, stripped, failed, error_bits, hits);
                // By chance a code is right for another modifier or key, with few bits once in a while.
                print(" modifier %d key %d\n", (u64)(other_modifier > 30), (u64)(other_key > 30));
            }
    }
    // Keys off: nothing happens.
    tcr_now = kernel_tcr;
    static const int ENABLE[] = {31, 30, 27, 13};
    for (u64 off = 0; off < 4; off++) {
        sctlr_now = (kernel_sctlr | (enable & 0xffffffff)) & ~(1ul << ENABLE[off]);
        for (u64 key = 0; key < 4; key++) {
            u64 changed = 0;
            for (int n = 0; n < 20; n++) changed |= apply(SIGN[key], 0x1234567000 + n * 0x1000, 5) >> 40;
            print("key %d off, key %d: changes %d\n", off, key, (u64)(changed != 0));
        }
    }
    sctlr_now = kernel_sctlr | (enable & 0xffffffff);
    // PACGA: the upper half of a word, whatever is enabled.
    u64 low = 0, high = 0;
    for (int n = 0; n < 20; n++) {
        u64 code = apply(pacga, random64(), random64());
        low |= code & 0xffffffff;
        high |= code >> 32;
    }
    print("PACGA: low %x high %d\n", low, (u64)(high != 0));
    sctlr_now = kernel_sctlr;
    print("PACGA without keys enabled: %d\n", (u64)(apply(pacga, 1, 2) != 0));
    sctlr_now = kernel_sctlr | (enable & 0xffffffff);
    // Branches and loads that authenticate, right and wrong.
    u64 target = (u64)landing;
    u64 good = apply(pacia, target, 7);
    prepare((u64)braa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = good; run.x[1] = 7;
    enter();
    report("braa right", target);
    prepare((u64)braa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = good ^ 1ul << 50; run.x[1] = 7;
    enter();
    print("braa wrong: vector %d esr %x elr +%x far +%x\n", run.vector, run.esr, run.pc - target, run.far - target);
    prepare((u64)blraa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = good; run.x[1] = 7;
    enter();
    report("blraa right", target);
    print("blraa link: +%x\n", run.x[30] - (u64)blraa);
    prepare((u64)retaa, EL1H);
    run.sctlr = sctlr_now;
    // RETAA takes SP for a modifier.
    u64 stack = run.sp1;
    u64 for_return = apply(pacia, target, stack);
    prepare((u64)retaa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = for_return;
    enter();
    report("retaa right", target);
    prepare((u64)retaa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = target;
    enter();
    print("retaa unsigned: vector %d class %x right %d\n", run.vector, run.esr >> 26, (u64)(run.pc == target + 4));
    static u64 datum = 0x5a5a;
    u64 pointer = apply(pacda, (u64)&datum, 0);
    prepare((u64)ldraa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = pointer;
    enter();
    print("ldraa right: esr %x x0 %x\n", run.esr, run.x[0]);
    prepare((u64)ldraa, EL1H);
    run.sctlr = sctlr_now; run.x[0] = pointer ^ 1ul << 50;
    enter();
    print("ldraa wrong: esr %x far +%x\n", run.esr, run.far - (u64)&datum);
    // Not canonical when signed: never right afterwards.
    u64 good_again = 0;
    for (int n = 0; n < 20; n++) {
        u64 bad = 0x0010001234567000 + n * 0x1000;
        good_again += apply(autia, apply(pacia, bad, 3), 3) == (bad & 0x7fffffffff);
    }
    print("not canonical: %d\n", good_again);
    return 0;
}
