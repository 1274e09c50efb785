// Scalar double precision. Where a compiler would contract, the multiply-add is written out, so that every host gets the
// same bits.
#include "bench.h"

#include <math.h>
#include <string.h>

struct body {
    double x, y, z, vx, vy, vz, mass;
};

static u64 bits(double value) {
    u64 result;
    memcpy(&result, &value, 8);
    return result;
}

static void __attribute__((noinline)) advance(struct body *b, int count, double dt) {
    for (int i = 0; i < count; i++) {
        for (int j = i + 1; j < count; j++) {
            double dx = b[i].x - b[j].x, dy = b[i].y - b[j].y, dz = b[i].z - b[j].z;
            double d2 = fma(dz, dz, fma(dy, dy, dx * dx));
            double mag = dt / (d2 * sqrt(d2));
            b[i].vx = fma(-dx * b[j].mass, mag, b[i].vx);
            b[i].vy = fma(-dy * b[j].mass, mag, b[i].vy);
            b[i].vz = fma(-dz * b[j].mass, mag, b[i].vz);
            b[j].vx = fma(dx * b[i].mass, mag, b[j].vx);
            b[j].vy = fma(dy * b[i].mass, mag, b[j].vy);
            b[j].vz = fma(dz * b[i].mass, mag, b[j].vz);
        }
    }
    for (int i = 0; i < count; i++) {
        b[i].x = fma(dt, b[i].vx, b[i].x);
        b[i].y = fma(dt, b[i].vy, b[i].y);
        b[i].z = fma(dt, b[i].vz, b[i].z);
    }
}

// Sun and the great planets (positions in astronomical units, velocities a year).
static u64 nbody(u64 units) {
    static const struct body START[5] = {
        {0, 0, 0, 0, 0, 0, 39.47},
        {4.84, -1.16, -0.10, 0.60, 2.81, -0.02, 0.0376},
        {8.34, 4.12, -0.40, -1.01, 1.82, 0.008, 0.0112},
        {12.89, -15.11, -0.22, 1.08, 0.86, -0.010, 0.0017},
        {15.37, -25.91, 0.17, 0.97, 0.59, -0.034, 0.0020},
    };
    struct body bodies[5];
    while (units--) {
        memcpy(bodies, START, sizeof bodies);
        for (int step = 0; step < 100; step++) advance(bodies, 5, 0.01);
    }
    u64 sum = 0;
    for (int i = 0; i < 5; i++) sum = mix(mix(sum, bits(bodies[i].x)), bits(bodies[i].vy));
    return sum;
}

static u64 roots(u64 units) {
    double sum = 0;
    while (units--) {
        double x = 1;
        sum = 0;
        for (int i = 1; i <= 1000; i++) {
            double root = sqrt((double)i + x);
            x = root / (1.0 + x);
            sum += 1.0 / root + (double)i / (root + 3.0);
        }
        BARRIER();
    }
    return bits(sum);
}

// The sum of a series by conversions, comparisons and absolute values: what programs do between the arithmetic.
static u64 series(u64 units) {
    u64 result = 0;
    while (units--) {
        double value = 0.5, total = 0;
        long whole = 0;
        for (int i = 0; i < 1000; i++) {
            value = 3.75 * value * (1.0 - value);
            double centred = value - 0.5;
            if (fabs(centred) > 0.25) total -= centred;
            else total += value;
            whole += (long)(value * 1000.0);
            total += (double)(whole & 15);
        }
        result = mix(bits(total), (u64)whole);
        BARRIER();
    }
    return result;
}

const struct workload DOUBLES[] = {{"nbody", nbody}, {"roots", roots}, {"series", series}, {0, 0}};
