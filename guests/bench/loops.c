// Integer work in loops: sieve, text, hashes, a tokenizer.
#include "bench.h"

#include <stdio.h>
#include <string.h>

static u64 sieve(u64 units) {
    static u8 composite[65536];
    u64 count = 0;
    while (units--) {
        memset(composite, 0, sizeof composite);
        count = 0;
        for (u32 i = 2; i < sizeof composite; i++) {
            if (composite[i]) continue;
            count++;
            for (u64 j = (u64)i * i; j < sizeof composite; j += i) composite[j] = 1;
        }
        BARRIER();
    }
    return count;
}

static u64 format(u64 units) {
    char line[200];
    u64 sum = 0;
    while (units--) {
        sum = 0;
        for (int i = 0; i < 100; i++) {
            int n = snprintf(line, sizeof line, "%s: %d of %08x, %5u/%-5ld %c %s", i & 1 ? "entry" : "record", i * 12345 - 600000,
                             (unsigned)i * 2654435761u, (unsigned)i, (long)i << 20, 'a' + i % 26, "and some more text");
            for (int k = 0; k < n; k += 7) sum = mix(sum, (u8)line[k]);
        }
    }
    return sum;
}

// FNV-1a by bytes, and one of multiplications and rotations by words, as in xxHash.
static u64 hash(u64 units) {
    static u8 data[16384];
    u64 state = 1, sum = 0;
    for (u64 i = 0; i < sizeof data; i++) data[i] = (u8)random_next(&state);
    while (units--) {
        u64 fnv = 0xcbf29ce484222325;
        for (u64 i = 0; i < sizeof data; i += 4) fnv = (fnv ^ data[i]) * 0x100000001b3;
        u64 lanes[4] = {1, 2, 3, 4};
        for (u64 i = 0; i < sizeof data; i += 32)
            for (int lane = 0; lane < 4; lane++) {
                u64 word;
                memcpy(&word, data + i + 8 * lane, 8);
                u64 v = lanes[lane] + word * 0xc2b2ae3d27d4eb4f;
                lanes[lane] = (v << 31 | v >> 33) * 0x9e3779b185ebca87;
            }
        sum = fnv ^ lanes[0] ^ lanes[1] * 3 ^ lanes[2] * 5 ^ lanes[3] * 7;
        BARRIER();
    }
    return sum;
}

// A tokenizer of JSON: classes of characters by a table, one switch a character.
static u64 states(u64 units) {
    static const char *text = "{\"name\": \"value \\\"quoted\\\" \\u0041\", \"list\": [1, -2.5e3, true, false, null, {\"a\": []}],"
                              " \"longer text here\": \"Lorem ipsum dolor sit amet, consectetur adipiscing elit\", \"n\": 18446744}";
    u64 sum = 0;
    while (units--) {
        u64 strings = 0, numbers = 0, words = 0, marks = 0, depth = 0, hash = 0;
        for (int round = 0; round < 20; round++) {
            enum { BETWEEN, STRING, ESCAPE, NUMBER, WORD } state = BETWEEN;
            for (const char *p = text; *p; p++) {
                char c = *p;
                switch (state) {
                case STRING:
                    if (c == '\\') state = ESCAPE;
                    else if (c == '"') state = BETWEEN, strings++;
                    else hash = hash * 31 + (u8)c;
                    continue;
                case ESCAPE: state = STRING; continue;
                case NUMBER:
                    if ((c >= '0' && c <= '9') || c == '.' || c == 'e' || c == '-' || c == '+') continue;
                    numbers++;
                    state = BETWEEN;
                    break;
                case WORD:
                    if (c >= 'a' && c <= 'z') continue;
                    words++;
                    state = BETWEEN;
                    break;
                default: break;
                }
                switch (c) {
                case '"': state = STRING; break;
                case '{': case '[': depth++; break;
                case '}': case ']': depth--; break;
                case ':': case ',': marks++; break;
                case ' ': break;
                case '-': case '0' ... '9': state = NUMBER; break;
                default: state = WORD;
                }
            }
            hash += depth;
        }
        sum = mix(mix(mix(mix(hash, strings), numbers), words), marks);
        BARRIER();
    }
    return sum;
}

const struct workload LOOPS[] = {{"sieve", sieve}, {"format", format}, {"hash", hash}, {"states", states}, {0, 0}};
