// Code that is new: written by the program itself, as compilers inside of browsers and runtimes do, and code that is
// executed once.
//
// A generator of five operations on one register (and a word of memory), for this host and for the guest: what it makes
// gives the same numbers on both.
#define _GNU_SOURCE
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

// value, memory -> value
typedef u64 (*function)(u64, u64 *);

enum operation { ADD, XOR, ROTATE, STORE_ADD, SKIP, OPERATIONS };

#ifdef __aarch64__
typedef u32 *writer;
static writer operation(writer w, enum operation op, u32 n) {
    switch (op) {
    case ADD: *w++ = 0x91000000 | (n & 0xfff) << 10; break;                // add x0, x0, #n
    case XOR: *w++ = 0xd2800002 | (n & 0xffff) << 5; *w++ = 0xca020000; break; // mov x2, #n; eor x0, x0, x2
    case ROTATE: *w++ = 0x93c00000 | (n % 63 + 1) << 10; break;              // ror x0, x0, #
    case STORE_ADD: *w++ = 0xf9000020 | (n & 31) << 10; *w++ = 0xf9400022 | (n * 7 & 31) << 10; *w++ = 0x8b020000; break;
    default: *w++ = 0x37000040 | (n & 31) << 19; *w++ = 0x91000400; break;   // tbnz w0, #, over; add x0, x0, #1
    }
    return w;
}
static writer end(writer w) { *w++ = 0xd65f03c0; return w; }
#else
typedef u8 *writer;
static writer bytes(writer w, const char *b, int n) { memcpy(w, b, (u64)n); return w + n; }
static writer word(writer w, u32 n) { memcpy(w, &n, 4); return w + 4; }
static writer operation(writer w, enum operation op, u32 n) {
    switch (op) {
    case ADD: return word(bytes(w, "\x48\x05", 2), n & 0xfff);                // add rax, n
    case XOR: return word(bytes(w, "\x48\x35", 2), n & 0xffff);               // xor rax, n
    case ROTATE: w = bytes(w, "\x48\xc1\xc8", 3); *w++ = (u8)(n % 63 + 1); return w;
    case STORE_ADD:
        w = word(bytes(w, "\x48\x89\x86", 3), (n & 31) * 8);                   // mov [rsi+], rax
        return word(bytes(w, "\x48\x03\x86", 3), (n * 7 & 31) * 8);            // add rax, [rsi+]
    default:                                                                  // bt rax, n; jc over; add rax, 1
        w = bytes(w, "\x48\x0f\xba\xe0", 4);
        *w++ = (u8)(n & 31);
        return bytes(w, "\x72\x04\x48\x83\xc0\x01", 6);
    }
}
static writer end(writer w) { *w++ = 0xc3; return w; }
#endif

static function callable(void *code) {
#ifndef __aarch64__
    // The argument comes in another register than the result goes.
    static const u8 prologue[] = {0x48, 0x89, 0xf8};
    memcpy((u8 *)code - sizeof prologue, prologue, sizeof prologue);
    code = (u8 *)code - sizeof prologue;
#endif
    function f;
    memcpy(&f, &code, sizeof f);
    return f;
}

#define SPACE (8 << 20)

static u8 *space(void) {
    static u8 *map;
    if (!map) {
        map = mmap(0, SPACE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) fail("no memory to write code in");
        // Touched, so that page faults are not counted.
        memset(map, 0, SPACE);
    }
    return map + 64;
}

static writer program(void *at, u64 *random, int operations) {
    writer w = at;
    for (int i = 0; i < operations; i++) {
        u64 r = random_next(random);
        w = operation(w, (enum operation)(r % OPERATIONS), (u32)(r >> 32));
    }
    return end(w);
}

// A unit: a function of about 40 instructions is written where the last one was, and called twice.
static u64 fresh(u64 units) {
    u8 *at = space();
    u64 data[32], sum = 0;
    while (units--) {
        u64 random = 12345;
        sum = 0;
        for (int i = 0; i < 16; i++) {
            memset(data, 0, sizeof data);
            writer stop = program(at, &random, 24);
            __builtin___clear_cache((char *)at, (char *)stop);
            function f = callable(at);
            sum = mix(sum, f(f((u64)i, data), data));
        }
    }
    return sum;
}

// A unit: one instruction of a function is replaced, and it is called.
static u64 patch(u64 units) {
    u8 *at = space();
    u64 data[32], sum = 0, random = 777;
    writer stop = program(operation((writer)(void *)at, ROTATE, 0), &random, 12);
    __builtin___clear_cache((char *)at, (char *)stop);
    function f = callable(at);
    while (units--) {
        sum = 0;
        for (int i = 0; i < 64; i++) {
            memset(data, 0, sizeof data);
            operation((writer)(void *)at, ROTATE, (u32)i);
            __builtin___clear_cache((char *)at, (char *)at + 4);
            sum = mix(sum, f(0x123456789abcdef, data));
        }
    }
    return sum;
}

// A unit: some 180000 instructions in a row that were never executed before, once. Only their execution counts. The code
// is another each time but for the last, which makes the checksum.
static u64 cold(u64 units) {
    u8 *at = space();
    u64 data[32], sum = 0;
    while (units--) {
        u64 before = now(), random = 424242 + units;
        memset(data, 0, sizeof data);
        writer stop = program(at, &random, 100000);
        __builtin___clear_cache((char *)at, (char *)stop);
        function f = callable(at);
        uncounted += now() - before;
        sum = f(1, data);
    }
    return sum;
}

const struct workload CODE[] = {{"fresh", fresh}, {"patch", patch}, {"cold", cold}, {0, 0}};
