// Advanced SIMD: matrix products in single and double precision, and integer lanes. Written with the compiler's vector
// types, of 16 bytes everywhere; the numbers are small enough that every product and sum is exact.
#include "bench.h"

#include <string.h>
#ifdef __aarch64__
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

typedef float f32x4 __attribute__((vector_size(16)));
typedef double f64x2 __attribute__((vector_size(16)));
typedef u32 u32x4 __attribute__((vector_size(16)));

#ifdef __aarch64__
static inline f32x4 multiply_add(f32x4 sum, f32x4 a, f32x4 b) { return vfmaq_f32(sum, a, b); }
static inline f64x2 multiply_add_double(f64x2 sum, f64x2 a, f64x2 b) { return vfmaq_f64(sum, a, b); }
#elif defined(__FMA__)
static inline f32x4 multiply_add(f32x4 sum, f32x4 a, f32x4 b) { return _mm_fmadd_ps(a, b, sum); }
static inline f64x2 multiply_add_double(f64x2 sum, f64x2 a, f64x2 b) { return _mm_fmadd_pd(a, b, sum); }
#else
static inline f32x4 multiply_add(f32x4 sum, f32x4 a, f32x4 b) { return a * b + sum; }
static inline f64x2 multiply_add_double(f64x2 sum, f64x2 a, f64x2 b) { return a * b + sum; }
#endif

#define SIDE 64

static u64 floats(u64 units) {
    static float a[SIDE][SIDE] __attribute__((aligned(16))), b[SIDE][SIDE] __attribute__((aligned(16))),
        c[SIDE][SIDE] __attribute__((aligned(16)));
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) a[i][j] = (float)((i * 7 + j) % 13), b[i][j] = (float)((i + j * 5) % 11);
    while (units--) {
        BARRIER();
        for (int i = 0; i < SIDE; i += 2)
            for (int j = 0; j < SIDE; j += 8) {
                f32x4 s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0};
                for (int k = 0; k < SIDE; k++) {
                    f32x4 b0 = *(f32x4 *)&b[k][j], b1 = *(f32x4 *)&b[k][j + 4];
                    f32x4 x = {a[i][k], a[i][k], a[i][k], a[i][k]};
                    f32x4 y = {a[i + 1][k], a[i + 1][k], a[i + 1][k], a[i + 1][k]};
                    s00 = multiply_add(s00, x, b0), s01 = multiply_add(s01, x, b1);
                    s10 = multiply_add(s10, y, b0), s11 = multiply_add(s11, y, b1);
                }
                *(f32x4 *)&c[i][j] = s00, *(f32x4 *)&c[i][j + 4] = s01;
                *(f32x4 *)&c[i + 1][j] = s10, *(f32x4 *)&c[i + 1][j + 4] = s11;
            }
        BARRIER();
    }
    u64 sum = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) sum = mix(sum, (u64)c[i][j]);
    return sum;
}

static u64 doubles(u64 units) {
    static double a[SIDE][SIDE] __attribute__((aligned(16))), b[SIDE][SIDE] __attribute__((aligned(16))),
        c[SIDE][SIDE] __attribute__((aligned(16)));
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) a[i][j] = (double)((i * 7 + j) % 13), b[i][j] = (double)((i + j * 5) % 11);
    while (units--) {
        BARRIER();
        for (int i = 0; i < SIDE; i += 2)
            for (int j = 0; j < SIDE; j += 4) {
                f64x2 s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0};
                for (int k = 0; k < SIDE; k++) {
                    f64x2 b0 = *(f64x2 *)&b[k][j], b1 = *(f64x2 *)&b[k][j + 2];
                    f64x2 x = {a[i][k], a[i][k]}, y = {a[i + 1][k], a[i + 1][k]};
                    s00 = multiply_add_double(s00, x, b0), s01 = multiply_add_double(s01, x, b1);
                    s10 = multiply_add_double(s10, y, b0), s11 = multiply_add_double(s11, y, b1);
                }
                *(f64x2 *)&c[i][j] = s00, *(f64x2 *)&c[i][j + 2] = s01;
                *(f64x2 *)&c[i + 1][j] = s10, *(f64x2 *)&c[i + 1][j + 2] = s11;
            }
        BARRIER();
    }
    u64 sum = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) sum = mix(sum, (u64)c[i][j]);
    return sum;
}

static u64 integers(u64 units) {
    static u32x4 data[256];
    u32x4 sum = {0};
    while (units--) {
        for (u32 i = 0; i < 256; i++) data[i] = (u32x4){i, i * 3, i * 5, i * 7};
        BARRIER();
        sum = (u32x4){0};
        for (int round = 0; round < 8; round++)
            for (int i = 0; i < 256; i++) {
                u32x4 v = data[i];
                v ^= v << 13;
                v ^= v >> 17;
                v = v * 2654435761u + sum;
                u32x4 above = (u32x4)(v > (u32x4){1u << 31, 1u << 31, 1u << 31, 1u << 31});
                sum += (v & above) - (v & ~above & 0xff);
                data[i] = v | 1;
            }
        BARRIER();
    }
    return mix(mix(mix(sum[0], sum[1]), sum[2]), sum[3]);
}

const struct workload VECTORS[] = {{"f32-matrix", floats}, {"f64-matrix", doubles}, {"u32-lanes", integers}, {0, 0}};
