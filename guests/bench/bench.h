// What the workloads share. A workload does `units` equal pieces of work and returns a checksum of the last one, which is
// the same for every count, on every engine, and natively: the runner compares.
#pragma once

#include <stdint.h>
#include <time.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

struct workload {
    const char *name;
    u64 (*run)(u64 units);
};

// Guest time, in nanoseconds.
static inline u64 now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

// What of the run is not to be counted: preparations between measured pieces.
extern u64 uncounted;

// A small generator, the same everywhere (Marsaglia's xorshift).
static inline u64 random_next(u64 *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static inline u64 mix(u64 hash, u64 value) { return (hash ^ value) * 0x100000001b3; }

// The compiler must take it that memory was read and written here.
#define BARRIER() asm volatile("" ::: "memory")
// And that this value may be any.
#define OPAQUE(value) asm volatile("" : "+r"(value))

void fail(const char *what) __attribute__((noreturn));

extern const struct workload CALLS[], LOOPS[], DISPATCH[], DOUBLES[], VECTORS[], CRYPTO[], BLOCKS[], SYSTEM[], SWITCHES[],
    ATOMICS[], CODE[];
