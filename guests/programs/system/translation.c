// Stage 1 translation: random controls, tables and accesses, COUNT of them; then what is better said one by one.
//
// The half of the address space that is not tested holds the kernel: from there the switch is made and taken back.
#include "machine.h"

// Tables of every granule; a walk uses one slot of each level.
static u64 tables[4][8192] __attribute__((aligned(65536)));
static u64 pages[2 * 8192] __attribute__((aligned(65536)));
#define PAGE_WORDS 8192

SNIPPET(loads, "ldr x2, [x0]");
SNIPPET(load_byte, "ldrb w2, [x0]");
SNIPPET(load_half, "ldrsh x2, [x0]");
SNIPPET(load_user, "ldtr x2, [x0]");
SNIPPET(load_user_byte, "ldtrb w2, [x0]");
SNIPPET(load_pair, "ldp x2, x3, [x0]");
SNIPPET(load_vector, "ldr q0, [x0]\n fmov x2, d0");
SNIPPET(load_vectors, "ld1 {v0.16b-v3.16b}, [x0]\n fmov x2, d3");
SNIPPET(load_acquire, "ldar x2, [x0]");
SNIPPET(load_exclusive, "ldxr x2, [x0]");
SNIPPET(load_exclusive_pair, "ldxp x2, x3, [x0]");
SNIPPET(stores, "str x1, [x0]");
SNIPPET(store_byte, "strb w1, [x0]");
SNIPPET(store_user, "sttr x1, [x0]");
SNIPPET(store_pair, "stp x1, x1, [x0]");
SNIPPET(store_vector, "fmov d0, x1\n str q0, [x0]");
SNIPPET(store_vectors, "st1 {v0.16b-v3.16b}, [x0]");
SNIPPET(store_release, "stlr x1, [x0]");
SNIPPET(store_exclusive, "ldxr x2, [x0]\n stxr w3, x1, [x0]");
SNIPPET(add_atomic, ".inst 0xf8210002"); // ldadd x1, x2, [x0]
SNIPPET(swap_atomic, ".inst 0x38e18002"); // swpalb w1, w2, [x0]
SNIPPET(compare_swap, "mov x2, #0\n .inst 0xc8a27c01"); // cas x2, x1, [x0]
SNIPPET(compare_swap_pair, "mov x2, #0\n mov x3, #0\n mov x4, x1\n mov x5, x1\n .inst 0x48227c04"); // casp
SNIPPET(zero, "dc zva, x0");
SNIPPET(clean, "dc cvac, x0");
SNIPPET(clean_unify, "dc cvau, x0");
SNIPPET(clean_invalidate, "dc civac, x0");
SNIPPET(invalidate, "dc ivac, x0");
SNIPPET(invalidate_code, "ic ivau, x0");
SNIPPET(prefetch, "prfm pldl1keep, [x0]");
SNIPPET(execute, "br x0");
SNIPPET(at_s1e1r, "at s1e1r, x0\n isb");
SNIPPET(at_s1e1w, "at s1e1w, x0\n isb");
SNIPPET(at_s1e0r, "at s1e0r, x0\n isb");
SNIPPET(at_s1e0w, "at s1e0w, x0\n isb");
SNIPPET(at_s1e1rp, ".inst 0xd5087900\n isb");
SNIPPET(at_s1e1wp, ".inst 0xd5087920\n isb");

static const struct { const char *name; const u32 *code; u64 bytes; int el1_only; } ACCESSES[] = {
    {"ldr", loads, 8, 0}, {"ldrb", load_byte, 1, 0}, {"ldrsh", load_half, 2, 0}, {"ldtr", load_user, 8, 0},
    {"ldtrb", load_user_byte, 1, 0}, {"ldp", load_pair, 16, 0}, {"ldr q", load_vector, 16, 0},
    {"ld1", load_vectors, 64, 0}, {"ldar", load_acquire, 8, 0}, {"ldxr", load_exclusive, 8, 0},
    {"ldxp", load_exclusive_pair, 16, 0}, {"str", stores, 8, 0}, {"strb", store_byte, 1, 0},
    {"sttr", store_user, 8, 0}, {"stp", store_pair, 16, 0}, {"str q", store_vector, 16, 0},
    {"st1", store_vectors, 64, 0}, {"stlr", store_release, 8, 0}, {"stxr", store_exclusive, 8, 0},
    {"ldadd", add_atomic, 8, 0}, {"swpb", swap_atomic, 1, 0}, {"cas", compare_swap, 8, 0},
    {"casp", compare_swap_pair, 16, 0}, {"dc zva", zero, 1, 0}, {"dc cvac", clean, 1, 0},
    {"dc cvau", clean_unify, 1, 0}, {"dc civac", clean_invalidate, 1, 0}, {"dc ivac", invalidate, 1, 1},
    {"ic ivau", invalidate_code, 1, 0}, {"prfm", prefetch, 8, 0}, {"br", execute, 4, 0},
    {"at s1e1r", at_s1e1r, 1, 1}, {"at s1e1w", at_s1e1w, 1, 1}, {"at s1e0r", at_s1e0r, 1, 1},
    {"at s1e0w", at_s1e0w, 1, 1}, {"at s1e1rp", at_s1e1rp, 1, 1}, {"at s1e1wp", at_s1e1wp, 1, 1},
};
#define N_ACCESSES (sizeof ACCESSES / sizeof *ACCESSES)

#define AF (1ul << 10)
#define BAD_ADDRESS (1ul << 46)

// Bits of an entry that are random, most of the time what maps.
static u64 random_attributes(void) {
    u64 v = 0;
    v |= (chance(4) ? below(5) : 0) << 2;
    v |= below(4) << 6;
    v |= 3 << 8;
    if (!chance(5)) v |= AF;
    if (chance(2)) v |= 1 << 11;
    if (chance(3)) v |= 1ul << 51;
    if (chance(8)) v |= 1ul << 52;
    if (chance(4)) v |= 1ul << 53;
    if (chance(4)) v |= 1ul << 54;
    return v;
}

static u64 table_attributes(void) { return chance(4) ? random64() & 31ul << 59 : 0; }

static u64 *leaf;

// Tables that map `address` and what follows it; the base of the first.
static u64 build(u64 address, int granule, int input_bits, int upper) {
    int stride = granule - 3;
    int level = 4 - (input_bits - granule + stride - 1) / stride;
    u64 input = address & ((1ul << input_bits) - 1);
    u64 base = 0, *slot = 0;
    for (int first = 1;; level++, first = 0) {
        int shift = granule + (3 - level) * stride;
        u64 bits = first ? input_bits - shift : stride;
        u64 index = input >> shift & ((1ul << bits) - 1);
        u64 *table = tables[level];
        // A first table smaller than a page is anywhere in it that its size allows.
        u64 size = 8ul << bits;
        if (size < 64) size = 64;
        u64 to = (u64)table;
        if (first) {
            if (size < 4096) to += (below(4096 / size)) * size;
            base = to;
        } else {
            *slot = to | 3 | table_attributes();
        }
        slot = (u64 *)(to) + index;
        leaf = slot;
        u64 after = index + 1 < (1ul << bits) ? 1 : 0;
        int may_block = (level == 1 && granule == 12) || level == 2;
        if (level == 3 || (may_block && chance(3))) {
            // A page or a block; the next is another one. What is there of a block: RAM or nothing.
            u64 mask = (1ul << shift) - 1;
            u64 output = level == 3 ? (u64)pages & ~mask : 0x40000000 & ~mask;
            if (chance(30)) output |= BAD_ADDRESS;
            u64 kind = level == 3 ? 3 : 1;
            *slot = output | random_attributes() | kind;
            if (after) {
                u64 next = level == 3 ? ((u64)pages + (1ul << granule)) & ~mask : output;
                slot[1] = next | random_attributes() | kind;
                if (chance(4)) slot[1] = 0;
            }
            if (chance(20)) *slot &= ~1ul;
            if (chance(30)) *slot ^= 2;
            return base;
        }
        if (chance(60)) {
            *slot = below(4) & ~1ul;
            return base;
        }
        if (chance(60)) {
            // A table where no RAM is would be an external abort: too large an address instead.
            *slot = BAD_ADDRESS | 3;
            return base;
        }
        (void)upper;
    }
}

static u64 mix(void) {
    u64 sum = 0;
    for (u64 i = 0; i < PAGE_WORDS * 2; i++)
        if (pages[i] != 0) {
            sum = (sum ^ pages[i] ^ i) * 0x9e3779b97f4a7c15;
            pages[i] = 0;
        }
    return sum;
}

static void random_case(u64 n, u64 mmfr1, u64 mmfr2) {
    static const int GRANULES[] = {12, 14, 16};
    int granule = GRANULES[below(3)];
    int upper = below(2);
    int size = chance(3) ? 16 + (int)below(24) : granule == 12 ? 25 : granule == 14 ? 17 : 22;
    int input_bits = 64 - size;
    u64 tg = upper ? (granule == 12 ? 2 : granule == 14 ? 1 : 3) : (granule == 12 ? 0 : granule == 14 ? 2 : 1);
    int at_shift = upper ? 16 : 0;
    u64 tbi = chance(3), epd = chance(20), hpd = chance(4) && field(mmfr1, 12), e0pd = chance(6) && field(mmfr2, 60);
    u64 tcr = kernel_tcr & (upper ? 0xfffful : 0xffff0000ul);
    tcr |= (u64)size << at_shift | epd << (at_shift + 7) | tg << (upper ? 30 : 14);
    tcr |= tbi << (upper ? 38 : 37) | hpd << (upper ? 42 : 41) | e0pd << (upper ? 56 : 55);
    tcr |= (chance(3) ? 5ul : chance(2) ? 2ul : 5ul) << 32;
    if (chance(2)) tcr |= 1ul << 36;
    if (chance(2)) tcr |= 1ul << 22;
    if (field(mmfr1, 0) >= 1 && chance(2)) tcr |= 1ul << 39;
    if (field(mmfr1, 0) >= 2 && chance(2)) tcr |= 1ul << 40;
    u64 page = 1ul << granule;
    // Somewhere in the half; near the end of a page one time in two.
    u64 address = random64() & ((1ul << input_bits) - 1) & ~(page - 1);
    u64 access = below(N_ACCESSES);
    u64 bytes = ACCESSES[access].bytes;
    u64 offset = chance(2) ? page - below(bytes * 2 + 2) : below(page / 16) * 16;
    if (chance(3)) offset &= ~(bytes - 1);
    if (ACCESSES[access].code == execute) {
        offset &= ~3ul;
        if (offset >= page) offset = page - 4;
    }
    if (offset >= page) offset = page - bytes;
    if (upper) address |= ~((1ul << input_bits) - 1);
    for (int i = 0; i < 4; i++) tables[i][0] = 0;
    u64 base = build(address, granule, input_bits, upper);
    address += offset;
    if (tbi && chance(2)) address ^= below(256) << 56;
    if (chance(15)) address ^= 1ul << (input_bits < 55 ? input_bits : 54);
    if (chance(30)) address ^= 1ul << 60;
    // What an access reads; code that ends at once.
    for (u64 i = 0; i < 16; i++) {
        pages[(page - 64) / 8 + i] = 0xd4200020d4200020;
        pages[(offset & ~7ul) / 8 + i] = 0xd4200020d4200020;
    }
    u64 el1 = ACCESSES[access].el1_only || chance(2);
    u64 spsr = el1 ? EL1H : EL0;
    if (el1 && chance(3)) spsr |= 1 << 22;
    if (el1 && chance(3)) spsr |= 1 << 23;
    prepare((u64)ACCESSES[access].code, spsr);
    // The code is in the half of the kernel.
    if (!upper) run.pc += UPPER;
    run.x[0] = address;
    run.x[1] = random64();
    run.tcr = tcr;
    u64 asid = random64() << 48;
    run.ttbr0 = upper ? kernel_ttbr0 : base | asid;
    run.ttbr1 = upper ? base | asid : kernel_ttbr0;
    if (chance(3)) run.sctlr |= 2;
    if (chance(6)) run.sctlr |= 1 << 19;
    run.sctlr |= 1 << 26 | 1 << 14;
    u64 *where = leaf;
    u64 before = *where;
    write_register("par_el1", 0);
    if (upper) enter();
    else enter_upper();
    write_register("vbar_el1", read_register("vbar_el1") & 0x7ffffffffful);
    u64 pc = run.pc;
    print("%d %s EL%d PAN %d UAO %d granule %d size %d %s tcr %x sctlr %x leaf %x address %x: ", n,
          ACCESSES[access].name, el1, spsr >> 22 & 1, spsr >> 23 & 1, (u64)granule, (u64)size,
          upper ? "upper" : "lower", tcr, run.sctlr & 0x80002, before, address);
    print("vector %d esr %x pc %x x2 %x", run.vector, run.esr,
          pc == address ? 1ul : pc - (u64)ACCESSES[access].code - (upper ? 0 : UPPER) - (el1 ? 0 : USER_TEXT), run.x[2]);
    if (run.esr >> 26 != 0x3c) print(" far %x", run.far);
    if (ACCESSES[access].name[0] == 'a') print(" par %x", run.par);
    print(" leaf now %x memory %x\n", *where, mix());
    // The next case finds empty tables where this one had something.
    for (int i = 0; i < 4; i++)
        for (u64 *p = tables[i]; p < tables[i] + 8192; p++)
            if (*p) *p = 0;
}

// ---- one by one

static u64 *const window = tables[3];
#define WINDOW 0x200000000ul // a gigabyte of its own: level 1 entry 8

// Maps the window by 4 KiB pages next to the kernel.
static void map(u64 page, u64 entry) { window[page] = entry; }
static u64 *level1(void) { return (u64 *)kernel_ttbr0; }
#define NORMAL_PAGE (3 << 8 | AF | 3)

SNIPPET(load_twice, "ldr x2, [x0]\n ldr x3, [x1]");
SNIPPET(device_accesses, "ldr x2, [x0]\n ldr w2, [x0, #4]\n ldrh w2, [x0, #2]\n ldr x2, [x0, #4]");
SNIPPET(device_pair, "ldp x2, x3, [x0, #8]");
SNIPPET(device_vector, "add x0, x0, #8\n ldr q0, [x0]");
SNIPPET(device_zero, "dc zva, x0");
SNIPPET(device_exclusive, "ldr x2, [x0, #8]");

static void tlb(void) {
    level1()[8] = (u64)tables[2] | 3;
    tables[2][0] = (u64)window | 3;
    u64 first = (u64)pages, second = (u64)pages + 0x1000;
    pages[0] = 0x1111;
    pages[512] = 0x2222;
    map(0, first | NORMAL_PAGE);
    map(1, second | NORMAL_PAGE);
    flush_tlb();
    volatile u64 *p = (u64 *)WINDOW;
    print("window: %x %x\n", p[0], p[512]);
    // A page is moved: every TLBI that covers it shows the new one.
    static const char *const NAMES[] = {"vmalle1", "vae1", "vaae1", "vale1", "vaale1", "aside1", "vmalle1is", "vae1is",
                                        "vaae1is", "vale1is", "vaale1is"};
    for (u64 i = 0; i < 11; i++) {
        u64 to = i & 1 ? first : second;
        map(0, to | NORMAL_PAGE | (i == 5 ? 1 << 11 : 0));
        if (i == 5) flush_tlb();
        u64 argument = WINDOW >> 12;
        sync();
        switch (i) {
        case 0: asm volatile("tlbi vmalle1"); break;
        case 1: asm volatile("tlbi vae1, %0" ::"r"(argument)); break;
        case 2: asm volatile("tlbi vaae1, %0" ::"r"(argument)); break;
        case 3: asm volatile("tlbi vale1, %0" ::"r"(argument)); break;
        case 4: asm volatile("tlbi vaale1, %0" ::"r"(argument)); break;
        case 5: asm volatile("tlbi aside1, %0" ::"r"(0ul)); break;
        case 6: asm volatile("tlbi vmalle1is"); break;
        case 7: asm volatile("tlbi vae1is, %0" ::"r"(argument)); break;
        case 8: asm volatile("tlbi vaae1is, %0" ::"r"(argument)); break;
        case 9: asm volatile("tlbi vale1is, %0" ::"r"(argument)); break;
        default: asm volatile("tlbi vaale1is, %0" ::"r"(argument)); break;
        }
        sync();
        print("after %s: %x\n", NAMES[i], p[0]);
    }
    // From invalid to valid needs no invalidation; two ASIDs keep two non-global pages apart.
    map(2, 0);
    sync();
    at(EL1H, load_twice, WINDOW + 0x2000, WINDOW);
    report("unmapped", (u64)load_twice);
    map(2, first | NORMAL_PAGE);
    sync();
    prepare((u64)load_twice, EL1H);
    run.keep_tlb = 1;
    run.x[0] = WINDOW + 0x2000;
    run.x[1] = WINDOW;
    enter();
    print("mapped: esr %x x2 %x\n", run.esr, run.x[2]);
    for (u64 k = 0; k < 6; k++) {
        u64 asid = k % 3 + 1;
        map(3, (k % 3 == 1 ? second : first) | NORMAL_PAGE | 1 << 11);
        sync();
        prepare((u64)load_twice, EL1H);
        run.keep_tlb = 1;
        run.ttbr0 |= asid << 48;
        run.x[0] = run.x[1] = WINDOW + 0x3000;
        enter();
        print("ASID %d turn %d: %x\n", asid, k, run.x[2]);
    }
    flush_tlb();
    // Device memory of every kind, and normal memory without caches.
    for (u64 attribute = 0; attribute < 5; attribute++) {
        map(4, first | NORMAL_PAGE | attribute << 2);
        map(5, second | NORMAL_PAGE | attribute << 2);
        static const struct { const char *name; const u32 *code; u64 offset; } list[] = {
            {"aligned", device_accesses, 0}, {"pair", device_pair, 0}, {"pair off", device_pair, 4},
            {"vector off", device_vector, 0}, {"zero", device_zero, 64}, {"across", device_exclusive, 0xff4}};
        for (u64 i = 0; i < sizeof list / sizeof *list; i++) {
            at(EL1H, list[i].code, WINDOW + 0x4000 + list[i].offset, 0);
            print("attribute %d ", attribute);
            report(list[i].name, (u64)list[i].code);
        }
        for (u64 share = 0; share < 4; share++) {
            map(4, first | AF | 3 | attribute << 2 | share << 8);
            flush_tlb();
            at(EL1H, at_s1e1r, WINDOW + 0x4000, 0);
            print("attribute %d shareability %d: par %x\n", attribute, share, run.par);
        }
    }
    // Contiguous entries, changed one at a time after invalidation of all.
    for (u64 i = 0; i < 16; i++) map(16 + i, first | (i << 12 & 0xf000) | NORMAL_PAGE | 1ul << 52);
    flush_tlb();
    print("contiguous: %x %x\n", ((volatile u64 *)(WINDOW + 0x10000))[0], ((volatile u64 *)(WINDOW + 0x11000))[0]);
    level1()[8] = 0;
    flush_tlb();
    mix();
}

// With the MMU off.
SNIPPET(off_load, "ldr x2, [x0]\n ldr x3, [x0, #4]");
SNIPPET(off_big, "ldr x2, [x0]");
static void off(void) {
    prepare((u64)off_load, EL1H);
    run.sctlr &= ~1ul;
    run.x[0] = (u64)pages;
    enter();
    report("MMU off, unaligned", (u64)off_load);
    for (u64 bit = 44; bit < 64; bit++) {
        prepare((u64)off_big, EL1H);
        run.sctlr &= ~1ul;
        run.x[0] = (u64)pages | 1ul << bit;
        enter();
        // Where no memory is it is an external abort of either kind; only the largest are sure.
        print("MMU off, bit %d ", bit);
        if (bit >= 48) report("", (u64)off_big);
        else print("class: %x\n", run.esr >> 26);
        prepare((u64)off_big, EL1H);
        run.sctlr &= ~1ul;
        run.tcr |= 3ul << 37;
        run.x[0] = (u64)pages | 1ul << bit;
        enter();
        print("MMU off, TBI, bit %d ", bit);
        if (bit >= 48) report("", (u64)off_big);
        else print("class: %x\n", run.esr >> 26);
    }
    prepare((u64)at_s1e1r, EL1H);
    run.sctlr &= ~1ul;
    run.x[0] = (u64)pages + 0x123;
    enter();
    print("MMU off, AT: par %x\n", run.par);
}

int main(void) {
    u64 mmfr1 = read_register("id_aa64mmfr1_el1"), mmfr2 = read_register("id_aa64mmfr2_el1");
    tlb();
    off();
    for (u64 n = 0; n < COUNT; n++) random_case(n, mmfr1, mmfr2);
    return 0;
}
