typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

static void put(char c) { *(volatile u32 *)0x09000000 = c; }
static void put_hex(u64 v) {
    char b[16];
    int n = 0;
    do b[n++] = "0123456789abcdef"[v & 15]; while (v >>= 4);
    while (n) put(b[--n]);
}
static u32 r32(u64 a) { return *(volatile u32 *)a; }
static void w32(u64 a, u32 v) { *(volatile u32 *)a = v; }
static void w64(u64 a, u64 v) { *(volatile u64 *)a = v; }
static void w8(u64 a, u8 v) { *(volatile u8 *)a = v; }

#define MRS_(x) ({ u64 v; asm volatile("mrs %0, " #x : "=r"(v) :: "memory"); v; })
#define MRS(x) MRS_(x)
#define MSR_(x, w) do { u64 v_ = (w); asm volatile("msr " #x ", %0\nisb" :: "r"(v_) : "memory"); } while (0)
#define MSR(x, w) MSR_(x, w)

// Xorshift, as in src/random.rs.
static u64 seed = 88172645463325252ul;
static u32 rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed >> 16;
}
static u32 below(u32 n) { return rnd() % n; }
static u32 few(void) { u32 v = rnd(); v &= rnd(); v &= rnd(); return v; }

static const int intids[12] = {0, 1, 2, 3, 20, 21, 22, 40, 42, 43, 44, 45};
static u32 taken[64];
static int depth = 0;
static void push(u32 v) { if ((v & 0x3ff) < 1020 && depth < 64) taken[depth++] = v; }

// FNV-1a over 64-bit values.
static u64 hash = 0xcbf29ce484222325ul;
static void answer(u64 v) {
    hash = (hash ^ v) * 0x100000001b3ul;
#ifdef TRACE
    put_hex(v);
    put(' ');
#endif
}
static void end_of_step(int step) {
#ifdef TRACE
    put('\n');
#else
    if (step % 100 == 99) { put_hex(hash); put('\n'); }
#endif
}
