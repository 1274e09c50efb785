// Memory: blocks copied and filled by the C library, and what no translator can make faster: chains through it and sums
// over it.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static u64 sample(const u8 *data, u64 size) {
    u64 sum = 0;
    for (u64 i = 0; i < size; i += 509) sum = mix(sum, data[i]);
    return sum;
}

static u64 copy_of(u64 units, u64 size, u64 times) {
    static u8 from[1 << 20], to[1 << 20];
    for (u64 i = 0; i < size; i++) from[i] = (u8)(i * 31 >> 3);
    while (units--) {
        for (u64 i = 0; i < times; i++) {
            memcpy(to, from, size);
            BARRIER();
        }
    }
    return sample(to, size);
}

static u64 copy_small(u64 units) { return copy_of(units, 4000, 256); }
static u64 copy_large(u64 units) { return copy_of(units, 1 << 20, 1); }

static u64 fill(u64 units) {
    static u8 block[65536];
    while (units--) {
        for (u64 i = 0; i < 8; i++) {
            memset(block, i & 1 ? 0x5a : 0, sizeof block - 64 * i);
            BARRIER();
        }
    }
    return sample(block, sizeof block);
}

// A ring through all of a block in random order: each load waits for the one before.
static u64 chase(u64 units) {
    enum { COUNT = 1 << 19 };
    static u32 *ring;
    if (!ring) {
        ring = malloc(COUNT * 8);
        u64 state = 7;
        for (u32 i = 0; i < COUNT; i++) ring[2 * i] = i;
        // Sattolo's shuffle: one cycle.
        for (u32 i = COUNT - 1; i > 0; i--) {
            u32 j = (u32)(random_next(&state) % i), t = ring[2 * i];
            ring[2 * i] = ring[2 * j];
            ring[2 * j] = t;
        }
    }
    u64 sum = 0;
    while (units--) {
        u32 at = 0;
        for (int i = 0; i < 10000; i++) at = ring[2 * at];
        sum = at;
    }
    return sum;
}

static u64 stream(u64 units) {
    static u64 data[1 << 15];
    for (u64 i = 0; i < 1 << 15; i++) data[i] = i * 0x9e3779b97f4a7c15;
    u64 sum = 0;
    while (units--) {
        BARRIER();
        sum = 0;
        for (u64 i = 0; i < 1 << 15; i++) sum += data[i] ^ i;
    }
    return sum;
}

const struct workload BLOCKS[] = {
    {"copy-4k", copy_small}, {"copy-1m", copy_large}, {"fill", fill}, {"chase", chase}, {"stream", stream}, {0, 0}};
