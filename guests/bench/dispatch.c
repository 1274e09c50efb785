// Calls through pointers, and interpreters: one that jumps from each operation to the next, one with a switch.
#include "bench.h"

#define KINDS 8
#define METHOD(n, body) \
    static u64 __attribute__((noinline)) method##n(u64 x) { return body; }
METHOD(0, x + 1)
METHOD(1, x ^ x >> 7)
METHOD(2, x * 3)
METHOD(3, x - 0x55)
METHOD(4, x << 1 | x >> 63)
METHOD(5, ~x)
METHOD(6, x & 1 ? x >> 1 : x + 9)
METHOD(7, x ^ 0x123456)

static u64 indirect(u64 units) {
    static u64 (*const methods[KINDS])(u64) = {method0, method1, method2, method3, method4, method5, method6, method7};
    static u64 (*objects[1024])(u64);
    u64 state = 99, x = 0;
    for (int i = 0; i < 1024; i++) objects[i] = methods[random_next(&state) % KINDS];
    while (units--) {
        BARRIER();
        x = 1;
        for (int i = 0; i < 1024; i++) x = objects[i](x);
    }
    return x;
}

enum { LOAD, ADD, SUBTRACT, MULTIPLY, XOR, SHIFT, DUPLICATE, SWAP, DROP, STORE, FETCH, JUMP_IF, DECREMENT, HALT };

// Turns of a loop over variables 0 (count) and 1 (hash).
static const u8 PROGRAM[] = {
    LOAD, 250, STORE, 0, LOAD, 17, STORE, 1,
    FETCH, 1, DUPLICATE, LOAD, 31, MULTIPLY, FETCH, 0, ADD, XOR, DUPLICATE, SHIFT, 3, SUBTRACT,
    LOAD, 7, SWAP, DROP, FETCH, 1, ADD, STORE, 1,
    DECREMENT, 0, FETCH, 0, JUMP_IF, 8, FETCH, 1, HALT,
};

static u64 __attribute__((noinline, optimize("no-gcse"))) threaded(const u8 *code) {
    static const void *const labels[] = {&&load, &&add, &&subtract, &&multiply, &&xor, &&shift, &&duplicate, &&swap,
                                         &&drop, &&store, &&fetch, &&jump_if, &&decrement, &&halt};
    u64 stack[16], *sp = stack, variables[2] = {0, 0};
    const u8 *pc = code;
#define NEXT goto *labels[*pc++]
    NEXT;
load: *sp++ = *pc++; NEXT;
add: sp--; sp[-1] += *sp; NEXT;
subtract: sp--; sp[-1] -= *sp; NEXT;
multiply: sp--; sp[-1] *= *sp; NEXT;
xor: sp--; sp[-1] ^= *sp; NEXT;
shift: sp[-1] = sp[-1] << *pc | sp[-1] >> (64 - *pc); pc++; NEXT;
duplicate: *sp = sp[-1]; sp++; NEXT;
swap: { u64 t = sp[-1]; sp[-1] = sp[-2]; sp[-2] = t; } NEXT;
drop: sp--; NEXT;
store: variables[*pc++ & 1] = *--sp; NEXT;
fetch: *sp++ = variables[*pc++ & 1]; NEXT;
jump_if: sp--; if (*sp) pc = code + *pc; else pc++; NEXT;
decrement: variables[*pc++ & 1]--; NEXT;
halt: return sp[-1];
}

static u64 __attribute__((noinline)) switched(const u8 *code) {
    u64 stack[16], *sp = stack, variables[2] = {0, 0};
    const u8 *pc = code;
    for (;;) {
        switch (*pc++) {
        case LOAD: *sp++ = *pc++; break;
        case ADD: sp--; sp[-1] += *sp; break;
        case SUBTRACT: sp--; sp[-1] -= *sp; break;
        case MULTIPLY: sp--; sp[-1] *= *sp; break;
        case XOR: sp--; sp[-1] ^= *sp; break;
        case SHIFT: sp[-1] = sp[-1] << *pc | sp[-1] >> (64 - *pc); pc++; break;
        case DUPLICATE: *sp = sp[-1]; sp++; break;
        case SWAP: { u64 t = sp[-1]; sp[-1] = sp[-2]; sp[-2] = t; } break;
        case DROP: sp--; break;
        case STORE: variables[*pc++ & 1] = *--sp; break;
        case FETCH: *sp++ = variables[*pc++ & 1]; break;
        case JUMP_IF: sp--; if (*sp) pc = code + *pc; else pc++; break;
        case DECREMENT: variables[*pc++ & 1]--; break;
        default: return sp[-1];
        }
    }
}

static u64 run_threaded(u64 units) {
    u64 result = 0;
    const u8 *program = PROGRAM;
    while (units--) {
        OPAQUE(program);
        result = threaded(program);
    }
    return result;
}

static u64 run_switched(u64 units) {
    u64 result = 0;
    const u8 *program = PROGRAM;
    while (units--) {
        OPAQUE(program);
        result = switched(program);
    }
    return result;
}

const struct workload DISPATCH[] = {{"indirect", indirect}, {"threaded", run_threaded}, {"switched", run_switched}, {0, 0}};
