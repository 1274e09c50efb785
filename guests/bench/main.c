// Runs workloads by name, each for at least a second: how much work that is, is found by doubling. Says
//   begin NAME
//   result NAME CHECKSUM UNITS COUNTED-NS ALL-NS
// around what is measured, so that whoever reads the lines can hold the guest's clock against his own.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

u64 uncounted;

static const struct workload *const GROUPS[] = {CALLS,  LOOPS,    DISPATCH, DOUBLES, VECTORS, CRYPTO,
                                                BLOCKS, SYSTEM, SWITCHES, ATOMICS, CODE};

static const u64 SECOND = 1000000000;
// A workload whose preparations take longer than what is measured ends here.
static const u64 PATIENCE = 6000000000;

void fail(const char *what) {
    printf("failed: %s\n", what);
    exit(1);
}

struct timing {
    u64 checksum, counted, all;
};

static struct timing timed(const struct workload *w, u64 units) {
    uncounted = 0;
    u64 start = now();
    u64 checksum = w->run(units);
    u64 all = now() - start;
    return (struct timing){checksum, all - uncounted, all};
}

static void measure(const struct workload *w) {
    struct timing t = timed(w, 1);
    u64 checksum = t.checksum, units = 1;
    while (t.counted < SECOND / 10 && t.all < PATIENCE / 10) {
        units *= t.counted < SECOND / 100 ? 8 : 2;
        t = timed(w, units);
    }
    do {
        double more = 1.15 * (double)SECOND / (double)t.counted, most = (double)PATIENCE / (double)t.all;
        units = (u64)((double)units * (more < most ? more : most)) + 1;
        printf("begin %s\n", w->name);
        fflush(stdout);
        t = timed(w, units);
        printf("result %s %016llx %llu %llu %llu\n", w->name, (unsigned long long)t.checksum, (unsigned long long)units,
               (unsigned long long)t.counted, (unsigned long long)t.all);
        fflush(stdout);
        if (t.checksum != checksum) fail("the checksum is another after more work");
    } while (t.counted < SECOND && t.all < PATIENCE / 2);
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "nothing") == 0) return 0;
    for (u64 g = 0; g < sizeof GROUPS / sizeof *GROUPS; g++)
        for (const struct workload *w = GROUPS[g]; w->name; w++) {
            int wanted = count == 1;
            for (int i = 1; i < count; i++) wanted |= strcmp(arguments[i], w->name) == 0;
            if (wanted) measure(w);
        }
    printf("benchmarks done\n");
    return 0;
}
