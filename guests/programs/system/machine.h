// What the system-level programs share: a world switch, page tables of the kernel, printing.
//
// A program prints lines "label: value", each label once. They are compared between two machines, so that nothing that
// depends on time or on the size of the machine may be printed.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#ifndef SEED
#define SEED 1
#endif
#ifndef COUNT
#define COUNT 200
#endif

// What runs in the other world, and how it ended. Offsets are those of start.S.
struct run {
    u64 x[31];
    u64 sp0, sp1, pc, spsr;
    // Set by the exception that ended it: vector (0 to 15) and registers.
    u64 vector, esr, far;
    u64 par;
    // Programmed before, and the kernel's again afterwards.
    u64 ttbr0, ttbr1, tcr, sctlr, mair;
    u64 active;
    u64 kernel[14];
    // Not to invalidate the TLB before.
    u64 keep_tlb;
};
extern struct run run;

// The kernel's own.
extern u64 kernel_ttbr0, kernel_tcr, kernel_sctlr, kernel_mair;

// Where the kernel's memory is besides its own addresses. The text for both levels, read-only; memory that EL0 writes;
// everything by the upper half.
#define USER_TEXT 0x40000000ul
#define USER_DATA 0x80000000ul
#define UPPER 0xffffff8000000000ul

#define EL0 0x3c0ul
#define EL1T 0x3c4ul
#define EL1H 0x3c5ul

// Runs until the next exception. `enter_upper` does so from the upper half of the address space.
void enter(void);
void enter_upper(void);
// Fresh `run`: code at EL1 (kernel addresses) or EL0 (its alias), kernel's translation.
void prepare(u64 pc, u64 spsr);
// The same and `enter`; x0 and x1 given.
void at(u64 spsr, const void *code, u64 x0, u64 x1);

int main(void);
void print(const char *format, ...);
// "label: vector esr elr far spsr" of the last run; FAR where the syndrome says it is valid. pc relative to `base`.
void report(const char *label, u64 base);
void power_off(void) __attribute__((noreturn));
u64 call(u64 function, u64 a, u64 b, u64 c);
u64 random64(void);
static inline u64 below(u64 n) { return (random64() >> 8) % n; }
static inline u64 chance(u64 n) { return below(n) == 0; }

#define STRING(x) #x
#define read_register(name) \
    ({ u64 v_; asm volatile("mrs %0, " name : "=r"(v_)::"memory"); v_; })
#define write_register(name, value) \
    do { u64 v_ = (value); asm volatile("msr " name ", %0\n isb" ::"r"(v_) : "memory"); } while (0)

static inline void sync(void) { asm volatile("dsb sy\n isb" ::: "memory"); }
static inline void flush_tlb(void) { asm volatile("dsb sy\n tlbi vmalle1\n dsb sy\n isb" ::: "memory"); }

// Code of the other world, by name. It ends with BRK unless something else happens before.
#define SNIPPET(name, body)                                                                     \
    extern const u32 name[];                                                                    \
    asm(".pushsection .text.snippets,\"ax\"\n .balign 16\n .global " #name "\n" #name ":\n" body                \
        "\n brk #0xfff\n .popsection\n")

// An identification field.
static inline u64 field(u64 value, int at) { return value >> at & 15; }
