// Integer work that calls: recursion, the C library's qsort with its comparison function, and what CoreMark is made of
// (lists, small matrices, a state machine over text, CRCs), written anew.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static u64 __attribute__((noinline)) fibonacci(u64 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

static u64 recursion(u64 units) {
    u64 sum = 0;
    while (units--) {
        u64 n = 22;
        OPAQUE(n);
        sum = fibonacci(n);
    }
    return sum;
}

static int compare(const void *a, const void *b) {
    u32 x = *(const u32 *)a, y = *(const u32 *)b;
    return x < y ? -1 : x > y;
}

static u64 sort(u64 units) {
    static u32 numbers[10000];
    u64 sum = 0;
    while (units--) {
        u64 state = 88172645463325252;
        for (int i = 0; i < 10000; i++) numbers[i] = (u32)random_next(&state);
        qsort(numbers, 10000, sizeof *numbers, compare);
        sum = 0;
        for (int i = 0; i < 10000; i += 100) sum = mix(sum, numbers[i]);
    }
    return sum;
}

// ---- after CoreMark

struct item {
    struct item *next;
    u16 value, index;
};

static u16 __attribute__((noinline)) crc16(u64 value, u16 crc) {
    for (int i = 0; i < 16; i++) {
        u16 carry = (u16)((value ^ crc) & 1);
        value >>= 1;
        crc >>= 1;
        if (carry) crc ^= 0xa001;
    }
    return crc;
}

static int by_value(const struct item *a, const struct item *b) { return (int)a->value - (int)b->value; }
static int by_index(const struct item *a, const struct item *b) { return (int)a->index - (int)b->index; }

static struct item *__attribute__((noinline)) merge(struct item *a, struct item *b,
                                                    int (*order)(const struct item *, const struct item *)) {
    struct item head, *tail = &head;
    while (a && b) {
        struct item **least = order(a, b) <= 0 ? &a : &b;
        tail->next = *least;
        tail = *least;
        *least = (*least)->next;
    }
    tail->next = a ? a : b;
    return head.next;
}

static struct item *sort_list(struct item *list, int (*order)(const struct item *, const struct item *)) {
    if (!list || !list->next) return list;
    struct item *slow = list, *fast = list->next;
    while (fast && fast->next) slow = slow->next, fast = fast->next->next;
    struct item *second = slow->next;
    slow->next = 0;
    return merge(sort_list(list, order), sort_list(second, order), order);
}

static struct item *reverse(struct item *list) {
    struct item *result = 0;
    while (list) {
        struct item *next = list->next;
        list->next = result;
        result = list;
        list = next;
    }
    return result;
}

static u16 lists(u16 crc) {
    static struct item items[200];
    for (int i = 0; i < 200; i++)
        items[i] = (struct item){i < 199 ? &items[i + 1] : 0, (u16)(i * 7919 ^ 0x5a5a), (u16)i};
    struct item *list = items;
    for (u16 find = 0; find < 40; find++) {
        struct item *at = list;
        while (at && (at->value & 0xff) != find) at = at->next;
        crc = crc16(at ? at->index : 0xffff, crc);
        list = reverse(list);
    }
    list = sort_list(list, by_value);
    for (struct item *at = list; at; at = at->next) crc = crc16(at->index, crc);
    list = sort_list(list, by_index);
    return crc16(list->value, crc);
}

#define SIDE 16
static u16 matrices(u16 crc) {
    static short a[SIDE][SIDE], b[SIDE][SIDE];
    static int c[SIDE][SIDE];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) a[i][j] = (short)(i * 31 + j + crc % 7), b[i][j] = (short)(i - j * 17);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                int sum = 0;
                for (int k = 0; k < SIDE; k++) sum += round == 2 ? (a[i][k] * b[k][j] >> 2 & 15) : a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        int last = 0, run = 0;
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                run += c[i][j] > last ? 10 : c[i][j] & 3;
                last = c[i][j];
                a[i][j] = (short)(a[i][j] + round);
            }
        crc = crc16((u64)(unsigned)run, crc);
    }
    return crc;
}

enum state { START, INVALID, SIGN, INTEGER, FRACTION, EXPONENT, SCIENTIFIC, STATES };

static enum state __attribute__((noinline)) scan(const char **text, u32 *seen) {
    enum state state = START;
    const char *p = *text;
    for (; *p && *p != ','; p++) {
        char c = *p;
        int digit = c >= '0' && c <= '9';
        switch (state) {
        case START: state = digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? FRACTION : INVALID; break;
        case SIGN: state = digit ? INTEGER : c == '.' ? FRACTION : INVALID; break;
        case INTEGER: state = digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case FRACTION: state = digit ? FRACTION : c == 'e' ? EXPONENT : INVALID; break;
        case EXPONENT: state = digit || c == '+' || c == '-' ? SCIENTIFIC : INVALID; break;
        case SCIENTIFIC: state = digit ? SCIENTIFIC : INVALID; break;
        default: break;
        }
        seen[state]++;
    }
    *text = *p ? p + 1 : p;
    return state;
}

static u16 states(u16 crc) {
    static const char *text = "5012,-1234,+874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,"
                              "+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^";
    u32 seen[STATES] = {0}, ends[STATES] = {0};
    const char *p = text;
    while (*p) ends[scan(&p, seen)]++;
    for (int i = 0; i < STATES; i++) crc = crc16(ends[i] << 8 | seen[i], crc);
    return crc;
}

static u64 mark(u64 units) {
    u64 sum = 0;
    while (units--) {
        BARRIER();
        u16 crc = 0xffff;
        for (int i = 0; i < 4; i++) crc = states(matrices(lists(crc)));
        sum = crc;
    }
    return sum;
}

const struct workload CALLS[] = {{"recursion", recursion}, {"qsort", sort}, {"mark", mark}, {0, 0}};
