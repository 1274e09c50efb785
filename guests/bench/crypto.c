// AES-128 (FIPS 197) and SHA-256 (FIPS 180-4) with the processors' own instructions for them.
#include "bench.h"

#include <string.h>
#ifdef __aarch64__
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

static u8 rotate(u8 x, int by) { return (u8)(x << by | x >> (8 - by)); }

// The substitution box, by its definition: inverses by walking the powers of 3 and of its inverse.
static void make_box(u8 box[256]) {
    u8 p = 1, q = 1;
    do {
        p = (u8)(p ^ p << 1 ^ (p & 0x80 ? 0x1b : 0));
        q ^= (u8)(q << 1);
        q ^= (u8)(q << 2);
        q ^= (u8)(q << 4);
        if (q & 0x80) q ^= 0x09;
        box[p] = (u8)(q ^ rotate(q, 1) ^ rotate(q, 2) ^ rotate(q, 3) ^ rotate(q, 4) ^ 0x63);
    } while (p != 1);
    box[0] = 0x63;
}

static void expand(u8 key[176]) {
    u8 box[256], constant = 1;
    make_box(box);
    for (int i = 16; i < 176; i += 4) {
        u8 t[4];
        memcpy(t, key + i - 4, 4);
        if (i % 16 == 0) {
            u8 first = t[0];
            t[0] = box[t[1]] ^ constant;
            t[1] = box[t[2]], t[2] = box[t[3]], t[3] = box[first];
            constant = (u8)(constant << 1 ^ (constant & 0x80 ? 0x1b : 0));
        }
        for (int k = 0; k < 4; k++) key[i + k] = key[i + k - 16] ^ t[k];
    }
}

#ifdef __aarch64__
typedef uint8x16_t block;
static inline block load(const u8 *at) { return vld1q_u8(at); }
static inline void store(u8 *at, block value) { vst1q_u8(at, value); }
static inline block encrypt(block b, const block *key) {
    for (int i = 0; i < 9; i++) b = vaesmcq_u8(vaeseq_u8(b, key[i]));
    return veorq_u8(vaeseq_u8(b, key[9]), key[10]);
}
#else
typedef __m128i block;
static inline block load(const u8 *at) { return _mm_loadu_si128((const __m128i *)at); }
static inline void store(u8 *at, block value) { _mm_storeu_si128((__m128i *)at, value); }
static inline block encrypt(block b, const block *key) {
    b = _mm_xor_si128(b, key[0]);
    for (int i = 1; i < 10; i++) b = _mm_aesenc_si128(b, key[i]);
    return _mm_aesenclast_si128(b, key[10]);
}
#endif

static u64 aes(u64 units) {
    static u8 data[4096];
    u8 schedule[176] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
    expand(schedule);
    block key[11];
    for (int i = 0; i < 11; i++) key[i] = load(schedule + 16 * i);
    while (units--) {
        for (u64 i = 0; i < sizeof data; i++) data[i] = (u8)i;
        BARRIER();
        for (int round = 0; round < 4; round++)
            for (u64 i = 0; i < sizeof data; i += 64) {
                block a = load(data + i), b = load(data + i + 16), c = load(data + i + 32), d = load(data + i + 48);
                a = encrypt(a, key), b = encrypt(b, key), c = encrypt(c, key), d = encrypt(d, key);
                store(data + i, a), store(data + i + 16, b), store(data + i + 32, c), store(data + i + 48, d);
            }
        BARRIER();
    }
    u64 sum = 0;
    for (u64 i = 0; i < sizeof data; i++) sum = mix(sum, data[i]);
    return sum;
}

static const u32 K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static void compress(u32 hash[8], const u8 *data, u64 blocks) {
#ifdef __aarch64__
    uint32x4_t abcd = vld1q_u32(hash), efgh = vld1q_u32(hash + 4);
    for (; blocks--; data += 64) {
        uint32x4_t w[16], a = abcd, e = efgh;
        for (int i = 0; i < 4; i++) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i >= 4) w[i] = vsha256su1q_u32(vsha256su0q_u32(w[i - 4], w[i - 3]), w[i - 2], w[i - 1]);
            uint32x4_t wk = vaddq_u32(w[i], vld1q_u32(K + 4 * i)), before = abcd;
            abcd = vsha256hq_u32(abcd, efgh, wk);
            efgh = vsha256h2q_u32(efgh, before, wk);
        }
        abcd = vaddq_u32(abcd, a), efgh = vaddq_u32(efgh, e);
    }
    vst1q_u32(hash, abcd), vst1q_u32(hash + 4, efgh);
#elif defined(__SHA__)
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef = _mm_set_epi32((int)hash[0], (int)hash[1], (int)hash[4], (int)hash[5]);
    __m128i cdgh = _mm_set_epi32((int)hash[2], (int)hash[3], (int)hash[6], (int)hash[7]);
    for (; blocks--; data += 64) {
        __m128i w[16], a = abef, c = cdgh;
        for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(load(data + 16 * i), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i >= 4)
                w[i] = _mm_sha256msg2_epu32(
                    _mm_add_epi32(_mm_sha256msg1_epu32(w[i - 4], w[i - 3]), _mm_alignr_epi8(w[i - 1], w[i - 2], 4)), w[i - 1]);
            __m128i wk = _mm_add_epi32(w[i], load((const u8 *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
        }
        abef = _mm_add_epi32(abef, a), cdgh = _mm_add_epi32(cdgh, c);
    }
    u32 x[4], y[4];
    store((u8 *)x, abef), store((u8 *)y, cdgh);
    hash[0] = x[3], hash[1] = x[2], hash[4] = x[1], hash[5] = x[0];
    hash[2] = y[3], hash[3] = y[2], hash[6] = y[1], hash[7] = y[0];
#else
#define TURN(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (; blocks--; data += 64) {
        u32 w[64], v[8];
        for (int i = 0; i < 16; i++) memcpy(&w[i], data + 4 * i, 4), w[i] = __builtin_bswap32(w[i]);
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + (TURN(w[i - 15], 7) ^ TURN(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
                   (TURN(w[i - 2], 17) ^ TURN(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(v, hash, sizeof v);
        for (int i = 0; i < 64; i++) {
            u32 e = v[4], a = v[0];
            u32 t = v[7] + (TURN(e, 6) ^ TURN(e, 11) ^ TURN(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
            u32 u = (TURN(a, 2) ^ TURN(a, 13) ^ TURN(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 28);
            v[4] += t, v[0] = t + u;
        }
        for (int i = 0; i < 8; i++) hash[i] += v[i];
    }
#endif
}

static u64 sha256(u64 units) {
    static u8 data[4096];
    for (u64 i = 0; i < sizeof data; i++) data[i] = (u8)(i * 7);
    u32 hash[8] = {0};
    while (units--) {
        static const u32 START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
        memcpy(hash, START, sizeof hash);
        BARRIER();
        compress(hash, data, sizeof data / 64);
        BARRIER();
    }
    u64 sum = 0;
    for (int i = 0; i < 8; i++) sum = mix(sum, hash[i]);
    return sum;
}

const struct workload CRYPTO[] = {{"aes", aes}, {"sha256", sha256}, {0, 0}};
