// Two processes or threads that take turns, on one processor and on two.
#define _GNU_SOURCE
#include "bench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void on(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set)) fail("two processors are needed");
}

static void anywhere(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    CPU_SET(1, &set);
    sched_setaffinity(0, sizeof set, &set);
}

// A unit is one byte there and back.
static u64 pipes(u64 units, int other) {
    int there[2], back[2];
    u8 byte = 0;
    if (pipe(there) || pipe(back)) fail("pipe");
    on(0);
    pid_t child = fork();
    if (child == 0) {
        on(other);
        while (read(there[0], &byte, 1) == 1 && byte != 255) {
            byte++;
            if (write(back[1], &byte, 1) != 1) break;
        }
        _exit(0);
    }
    u64 sum = 0;
    while (units--) {
        byte = 41;
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("a pipe broke");
        sum = byte;
    }
    byte = 255;
    if (write(there[1], &byte, 1) != 1) fail("a pipe broke");
    waitpid(child, 0, 0);
    close(there[0]), close(there[1]), close(back[0]), close(back[1]);
    anywhere();
    return sum;
}

static u64 pipes_on_one(u64 units) { return pipes(units, 0); }
static u64 pipes_on_two(u64 units) { return pipes(units, 1); }

static u32 turn __attribute__((aligned(64)));
static u64 left, other_processor;

static void take_turns(u32 mine, u64 units) {
    while (units--) {
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != mine)
            syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, 1 - mine, 0, 0, 0);
        __atomic_store_n(&turn, 1 - mine, __ATOMIC_RELEASE);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    }
}

static void *second(void *nothing) {
    on((int)other_processor);
    take_turns(1, left);
    return nothing;
}

// A unit is a turn of each.
static u64 threads(u64 units, int other) {
    pthread_t thread;
    turn = 0, left = units, other_processor = (u64)other;
    on(0);
    if (pthread_create(&thread, 0, second, 0)) fail("pthread_create");
    take_turns(0, units);
    pthread_join(thread, 0);
    anywhere();
    return turn;
}

static u64 threads_on_one(u64 units) { return threads(units, 0); }
static u64 threads_on_two(u64 units) { return threads(units, 1); }

const struct workload SWITCHES[] = {{"pipe-1", pipes_on_one},
                                    {"pipe-2", pipes_on_two},
                                    {"thread-1", threads_on_one},
                                    {"thread-2", threads_on_two},
                                    {0, 0}};
