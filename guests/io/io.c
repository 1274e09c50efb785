// Measures networks, disks and screens in a Linux guest. Prints "begin NAME", then "figure NAME VALUE" by the guest's clock, or
// "failed: ...".
//
//   io receive NAME ADDRESS PORT         bytes/s out of a connection
//   io send NAME ADDRESS PORT            bytes/s into one
//   io trip NAME ADDRESS PORT            ns from a byte sent to a byte back
//   io read|write NAME DEVICE BYTES DEPTH [random]
//                                        bytes/s by blocks of so many bytes, so many at a time, past the page cache
//   io video NAME DEVICE                 pictures/s, each pixel another each time; "steady NAME" when they begin to count
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <drm/drm.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
// What is measured, and what goes before it.
#define LONG (3 * SECOND)
#define WARM (SECOND / 2)

static void fail(const char *what)
{
    printf("failed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void figure(const char *name, double value)
{
    printf("figure %s %.3f\n", name, value);
    exit(0);
}

static int reach(const char *address, const char *port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        fail("the address");
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof to) < 0)
        fail("connect");
    return s;
}

static char buffer[256 << 10];

static void stream(const char *name, int s, int out)
{
    uint64_t start = now(), counted = 0, all = 0;
    for (;;) {
        ssize_t n = out ? write(s, buffer, sizeof buffer) : read(s, buffer, sizeof buffer);
        if (n <= 0)
            fail("the stream");
        uint64_t at = now();
        if (!counted) {
            if (at - start > WARM)
                counted = at;
            continue;
        }
        all += n;
        if (at - counted > LONG)
            figure(name, (double)all * SECOND / (at - counted));
    }
}

static void trip(const char *name, int s)
{
    int yes = 1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    uint64_t start = now(), counted = 0, trips = 0;
    for (;;) {
        char byte = 'x';
        if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1)
            fail("a round trip");
        uint64_t at = now();
        if (!counted) {
            if (at - start > WARM)
                counted = at;
            continue;
        }
        trips++;
        if (at - counted > LONG)
            figure(name, (double)(at - counted) / trips);
    }
}

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void disk(const char *name, const char *device, int out, uint64_t bytes, int depth, int random)
{
    int d = open(device, (out ? O_RDWR : O_RDONLY) | O_DIRECT);
    uint64_t size = 0;
    if (d < 0 || ioctl(d, BLKGETSIZE64, &size) < 0)
        fail(device);
    uint64_t blocks = size / bytes, next = 0;
    char *memory;
    if (blocks == 0 || posix_memalign((void **)&memory, 4096, bytes * depth))
        fail("memory");
    memset(memory, 0x5a, bytes * depth);
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, depth, &context) < 0)
        fail("io_setup");
    struct iocb all[depth], *ready[depth];
    struct io_event events[depth];
    int count = depth;
    for (int i = 0; i < depth; i++)
        ready[i] = &all[i];
    uint64_t start = now(), counted = 0, done = 0;
    for (;;) {
        for (int i = 0; i < count; i++) {
            struct iocb *b = ready[i];
            uint64_t at = random ? rnd() % blocks : next++ % blocks;
            *b = (struct iocb){
                .aio_lio_opcode = out ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                .aio_fildes = d,
                .aio_buf = (uintptr_t)(memory + (b - all) * bytes),
                .aio_nbytes = bytes,
                .aio_offset = at * bytes,
            };
        }
        for (int given = 0; given < count;) {
            long n = syscall(SYS_io_submit, context, count - given, ready + given);
            if (n <= 0)
                fail("io_submit");
            given += n;
        }
        count = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        if (count <= 0)
            fail("io_getevents");
        for (int i = 0; i < count; i++) {
            if (events[i].res != (int64_t)bytes)
                fail("a block");
            ready[i] = (struct iocb *)(uintptr_t)events[i].obj;
        }
        uint64_t at = now();
        if (!counted) {
            if (at - start > WARM)
                counted = at;
            continue;
        }
        done += count;
        if (at - counted > LONG)
            figure(name, (double)done * bytes * SECOND / (at - counted));
    }
}

static void ask(int d, unsigned long request, void *what, const char *name)
{
    if (ioctl(d, request, what) < 0)
        fail(name);
}

// The first mode of the first output, by the kernel's interface to it (drm_mode.h).
static void video(const char *name, const char *device)
{
    int d = open(device, O_RDWR);
    if (d < 0)
        fail(device);
    uint32_t crtcs[16], connectors[16], encoders[16];
    struct drm_mode_card_res all = { .count_crtcs = 16, .count_connectors = 16, .count_encoders = 16 };
    all.crtc_id_ptr = (uintptr_t)crtcs;
    all.connector_id_ptr = (uintptr_t)connectors;
    all.encoder_id_ptr = (uintptr_t)encoders;
    ask(d, DRM_IOCTL_MODE_GETRESOURCES, &all, "resources");
    struct drm_mode_modeinfo modes[128];
    struct drm_mode_get_connector output = { .connector_id = connectors[0], .count_modes = 128 };
    output.modes_ptr = (uintptr_t)modes;
    ask(d, DRM_IOCTL_MODE_GETCONNECTOR, &output, "connector");
    struct drm_mode_create_dumb made = { .width = modes[0].hdisplay, .height = modes[0].vdisplay, .bpp = 32 };
    ask(d, DRM_IOCTL_MODE_CREATE_DUMB, &made, "buffer");
    struct drm_mode_fb_cmd picture = {
        .width = made.width, .height = made.height, .pitch = made.pitch, .bpp = 32, .depth = 24, .handle = made.handle,
    };
    ask(d, DRM_IOCTL_MODE_ADDFB, &picture, "picture");
    struct drm_mode_map_dumb map = { .handle = made.handle };
    ask(d, DRM_IOCTL_MODE_MAP_DUMB, &map, "map");
    uint32_t *pixels = mmap(NULL, made.size, PROT_READ | PROT_WRITE, MAP_SHARED, d, map.offset);
    if (pixels == MAP_FAILED)
        fail("mmap");
    struct drm_mode_crtc crtc = { .crtc_id = crtcs[0], .fb_id = picture.fb_id, .count_connectors = 1, .mode_valid = 1 };
    crtc.set_connectors_ptr = (uintptr_t)connectors;
    crtc.mode = modes[0];
    ask(d, DRM_IOCTL_MODE_SETCRTC, &crtc, "mode");
    uint64_t start = now(), counted = 0;
    for (uint32_t frame = 0, first = 0;; frame++) {
        for (uint32_t i = 0; i < made.size / 4; i++)
            pixels[i] = i + frame * 0x030507;
        struct drm_clip_rect part = { .x2 = made.width, .y2 = made.height };
        struct drm_mode_fb_dirty_cmd dirty = { .fb_id = picture.fb_id, .num_clips = 1 };
        dirty.clips_ptr = (uintptr_t)&part;
        ask(d, DRM_IOCTL_MODE_DIRTYFB, &dirty, "flush");
        uint64_t at = now();
        if (!counted && at - start > WARM) {
            printf("steady %s\n", name);
            counted = at;
            first = frame;
        } else if (counted && at - counted > LONG) {
            figure(name, (double)(frame - first) * SECOND / (at - counted));
        }
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 4)
        return 2;
    const char *what = argv[1], *name = argv[2];
    printf("begin %s\n", name);
    if (!strcmp(what, "video"))
        video(name, argv[3]);
    if (argc < 5)
        return 2;
    if (!strcmp(what, "receive"))
        stream(name, reach(argv[3], argv[4]), 0);
    if (!strcmp(what, "send"))
        stream(name, reach(argv[3], argv[4]), 1);
    if (!strcmp(what, "trip"))
        trip(name, reach(argv[3], argv[4]));
    if (argc >= 6 && (!strcmp(what, "read") || !strcmp(what, "write")))
        disk(name, argv[3], what[0] == 'w', strtoull(argv[4], NULL, 10), atoi(argv[5]), argc > 6);
    return 2;
}
