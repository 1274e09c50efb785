/*
 * Executes single A64 instructions on given states, and says what came of it: run as a program of another
 * implementation of the architecture (an emulator of user programs, or Linux on Arm), it is what the interpreter is
 * compared with. Layouts are those of `tests/instructions/src/oracle.rs`.
 *
 * Standard input: batches of a count (u32) and that many cases; standard output: as many results for each batch.
 * Count 0 ends.
 *
 * Everything happens in signal handlers: each case's state is put into the signal's context and returned to, and the
 * next signal (its own BRK, or the one after it, or a fault) brings the result. So no register has to be spared.
 */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ucontext.h>
#include <unistd.h>

enum {
    AREA = 0x40000000, /* nothing else is in its 2 MiB */
    AREA_SIZE = 0x200000,
    WINDOW = 0x40001000, /* a page of data; its last bytes are given by each case */
    PAGE = 4096,
    DATA = 512,
    CODE = 0x40100000, /* a slot of 16 bytes for each case: its instruction, and BRK */
    SLOT = 16,
    MAX_CASES = 4096,
    BRK = 0xd4200000u,
};

struct state {
    uint64_t x[31];
    uint64_t sp;
    uint64_t pc; /* of cases: a second instruction, or BRK */
    uint32_t nzcv, fpcr, fpsr;
    uint32_t word_or_signal; /* the instruction; in results the signal's number */
    uint64_t rest;           /* in results a sum of the window's other bytes */
    __uint128_t v[32];
    uint8_t data[DATA];
};

static struct state cases[MAX_CASES];
static uint32_t count, next;
static ucontext_t home;
static char stack[65536] __attribute__((aligned(16)));

static struct fpsimd_context *fpsimd(ucontext_t *context) {
    struct _aarch64_ctx *head = (void *)context->uc_mcontext.__reserved;
    while (head->magic != FPSIMD_MAGIC)
        head = (void *)((char *)head + head->size);
    return (void *)head;
}

static void save(struct state *s, const ucontext_t *context, int signal) {
    const struct fpsimd_context *fp = fpsimd((ucontext_t *)context);
    memcpy(s->x, context->uc_mcontext.regs, sizeof s->x);
    s->sp = context->uc_mcontext.sp;
    s->pc = context->uc_mcontext.pc;
    s->nzcv = context->uc_mcontext.pstate & 0xf0000000;
    s->fpcr = fp->fpcr;
    s->fpsr = fp->fpsr;
    memcpy(s->v, fp->vregs, sizeof s->v);
    s->word_or_signal = signal;
    memcpy(s->data, (void *)(intptr_t)(WINDOW + PAGE - DATA), DATA);
    s->rest = 0;
    for (const uint64_t *p = (void *)(intptr_t)WINDOW; p < (const uint64_t *)(intptr_t)(WINDOW + PAGE - DATA); p++)
        s->rest = s->rest * 31 + *p;
}

static void load(const struct state *s, ucontext_t *context, uint32_t index) {
    struct fpsimd_context *fp = fpsimd(context);
    memcpy(context->uc_mcontext.regs, s->x, sizeof s->x);
    context->uc_mcontext.sp = s->sp;
    context->uc_mcontext.pc = CODE + SLOT * index;
    context->uc_mcontext.pstate = (context->uc_mcontext.pstate & ~0xf0000000ull) | s->nzcv;
    fp->fpcr = s->fpcr;
    fp->fpsr = s->fpsr;
    memcpy(fp->vregs, s->v, sizeof s->v);
    memset((void *)(intptr_t)WINDOW, 0, PAGE - DATA);
    memcpy((void *)(intptr_t)(WINDOW + PAGE - DATA), s->data, DATA);
}

/* One case ends, the next begins. */
static void on_signal(int signal, siginfo_t *info, void *argument) {
    ucontext_t *context = argument;
    (void)info;
    if (next == 0) {
        memcpy(&home.uc_mcontext, &context->uc_mcontext, sizeof home.uc_mcontext);
        home.uc_mcontext.pc += 4;
    } else {
        save(&cases[next - 1], context, signal);
    }
    if (next < count) {
        load(&cases[next], context, next);
        next++;
    } else {
        memcpy(&context->uc_mcontext, &home.uc_mcontext, sizeof home.uc_mcontext);
    }
}

static int transfer(int file, char *bytes, size_t size, int writing) {
    while (size > 0) {
        ssize_t done = writing ? write(file, bytes, size) : read(file, bytes, size);
        if (done <= 0)
            return 0;
        bytes += done;
        size -= done;
    }
    return 1;
}

int main(void) {
    const int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    char *area = mmap((void *)(intptr_t)AREA, AREA_SIZE, PROT_NONE, fixed | MAP_NORESERVE, -1, 0);
    if (area != (char *)(intptr_t)AREA)
        return 2;
    if (mprotect((void *)(intptr_t)WINDOW, PAGE, PROT_READ | PROT_WRITE))
        return 2;

    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    const int signals[] = {SIGTRAP, SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);

    while (transfer(0, (char *)&count, sizeof count, 0) && count > 0) {
        if (count > MAX_CASES || !transfer(0, (char *)cases, count * sizeof *cases, 0))
            return 3;
        uint32_t *code = (void *)(intptr_t)CODE;
        if (mprotect(code, SLOT * MAX_CASES, PROT_READ | PROT_WRITE))
            return 2;
        for (uint32_t i = 0; i < SLOT * MAX_CASES / 4; i++)
            code[i] = BRK;
        for (uint32_t i = 0; i < count; i++) {
            code[SLOT / 4 * i] = cases[i].word_or_signal;
            code[SLOT / 4 * i + 1] = cases[i].pc;
        }
        __builtin___clear_cache((char *)code, (char *)code + SLOT * MAX_CASES);
        /* No case may change another. */
        if (mprotect(code, SLOT * MAX_CASES, PROT_READ | PROT_EXEC))
            return 2;
        next = 0;
        __asm__ volatile("brk #0" ::: "memory");
        if (!transfer(1, (char *)cases, count * sizeof *cases, 1))
            return 3;
    }
    return 0;
}
