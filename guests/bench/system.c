// What costs the kernel's time: system calls, signals, page faults, processes.
#define _GNU_SOURCE
#include "bench.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static u64 call(u64 units) {
    long parent = syscall(SYS_getppid);
    u64 same = 0;
    while (units--) {
        same = 0;
        for (int i = 0; i < 100; i++) same += syscall(SYS_getppid) == parent;
    }
    return same;
}

static volatile u64 signals;

static void count(int number) { signals += (u64)number; }

static u64 signal_to_self(u64 units) {
    struct sigaction action = {.sa_handler = count};
    sigaction(SIGUSR1, &action, 0);
    u64 seen = 0;
    while (units--) {
        signals = 0;
        for (int i = 0; i < 100; i++) raise(SIGUSR1);
        seen = signals;
    }
    return seen;
}

static u64 faults(u64 units) {
    enum { PAGES = 256 };
    u64 sum = 0;
    while (units--) {
        u8 *map = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) fail("mmap");
        sum = 0;
        for (u64 i = 0; i < PAGES; i++) map[4096 * i] = (u8)i, sum += map[4096 * i + 1] + i;
        munmap(map, PAGES * 4096);
    }
    return sum;
}

static u64 wait_for(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) fail("a child process");
    return (u64)WEXITSTATUS(status);
}

static u64 forks(u64 units) {
    u64 status = 0;
    while (units--) {
        pid_t child = fork();
        if (child == 0) _exit(7);
        status = wait_for(child);
    }
    return status;
}

static u64 execs(u64 units) {
    static char *const arguments[] = {"bench", "nothing", 0};
    static char *const environment[] = {0};
    u64 status = 0;
    while (units--) {
        pid_t child = vfork();
        if (child == 0) {
            execve("/proc/self/exe", arguments, environment);
            _exit(1);
        }
        status = wait_for(child);
    }
    return status;
}

const struct workload SYSTEM[] = {{"syscall", call},  {"signal", signal_to_self}, {"fault", faults},
                                  {"fork", forks}, {"exec", execs},            {0, 0}};
