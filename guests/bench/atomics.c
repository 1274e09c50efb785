// Atomic operations: with exclusives, with acquire and release, and with single instructions that two processors contend
// for.
#define _GNU_SOURCE
#include "bench.h"

#include <pthread.h>
#include <sched.h>

static u64 cell __attribute__((aligned(64)));

#ifdef __aarch64__
static inline u64 add_exclusive(u64 *at, u64 by) {
    u64 old, new;
    u32 failed;
    asm volatile("1: ldaxr %0, [%3]\n add %1, %0, %4\n stlxr %w2, %1, [%3]\n cbnz %w2, 1b"
                 : "=&r"(old), "=&r"(new), "=&r"(failed)
                 : "r"(at), "r"(by)
                 : "memory");
    return old;
}
static inline u64 add_at_once(u64 *at, u64 by) {
    u64 old;
    asm volatile(".arch_extension lse\n ldaddal %2, %0, [%1]" : "=r"(old) : "r"(at), "r"(by) : "memory");
    return old;
}
#else
static inline u64 add_exclusive(u64 *at, u64 by) {
    u64 old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, old + by, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
    return old;
}
static inline u64 add_at_once(u64 *at, u64 by) { return __atomic_fetch_add(at, by, __ATOMIC_ACQ_REL); }
#endif

static u64 exclusive(u64 units) {
    while (units--) {
        cell = 0;
        for (u64 i = 0; i < 1000; i++) add_exclusive(&cell, i);
    }
    return cell;
}

static u64 ordered(u64 units) {
    static u64 cells[16];
    u64 sum = 0;
    while (units--) {
        sum = 0;
        for (u64 i = 0; i < 1000; i++) {
            __atomic_store_n(&cells[i & 15], i, __ATOMIC_RELEASE);
            sum += __atomic_load_n(&cells[(i + 3) & 15], __ATOMIC_ACQUIRE) & 1;
        }
        for (int i = 0; i < 16; i++) __atomic_store_n(&cells[i], 0, __ATOMIC_RELAXED);
    }
    return sum;
}

struct contender {
    u64 turns;
    int processor;
    u64 (*add)(u64 *, u64);
};

static u64 at_once(u64 *at, u64 by) { return add_at_once(at, by); }
static u64 by_exclusives(u64 *at, u64 by) { return add_exclusive(at, by); }

static void *contend(void *argument) {
    const struct contender *c = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(c->processor, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (u64 i = 0; i < c->turns * 1000; i++) c->add(&cell, 1);
    return 0;
}

// A unit is a thousand additions of each of two threads to one word.
static u64 contended(u64 units, u64 (*add)(u64 *, u64)) {
    struct contender two[2] = {{units, 0, add}, {units, 1, add}};
    pthread_t threads[2];
    cell = 0;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], 0, contend, &two[i])) fail("pthread_create");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    if (cell != units * 2000) fail("additions were lost");
    return 2000;
}

static u64 contended_at_once(u64 units) { return contended(units, at_once); }
static u64 contended_exclusives(u64 units) { return contended(units, by_exclusives); }

const struct workload ATOMICS[] = {{"exclusive", exclusive},
                                   {"ordered", ordered},
                                   {"exclusive-2", contended_exclusives},
                                   {"lse-2", contended_at_once},
                                   {0, 0}};
