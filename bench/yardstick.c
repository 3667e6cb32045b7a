// The yardstick: the design of Tencrypt's data path in C, and nothing else. What this shape can give at most.
//
//   yardstick DEVICE ADDRESS PEER PORT MTU      prints "ready" when the device exists; MTU is the inner one
//
// TUN with virtio header, TSO and USO -> one AES-256-GCM call a super-packet -> datagrams of one size, each with 24
// bytes in front -> one sendmsg with UDP_SEGMENT; UDP_GRO on the way back. It polls 60 us before it sleeps,
// and lets others run meanwhile: those that it waits for may need its core.
// The key is fixed and nothing is checked (no handshake, window, source, policy): never use it for anything else.
//
//   datagram:  | counter 8 | record length 4 | offset in the record 4 | 8 unused | piece of the sealed record |
//   record:    sealed (virtio header 10 | packet) | tag 16
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    VNET = sizeof(struct virtio_net_hdr), TAG = 16, HEADER = 24,
    PIECES = 64,            // UDP_SEGMENT takes no more in one call
    LARGEST = 70000,
    BATCH = 16,             // super-packets of one direction before the other has its turn
    POLL_NS = 60 * 1000,
};

struct header {
    uint64_t counter;
    uint32_t length, offset;
    uint64_t unused;
};

static int tun, udp, piece;  // piece: bytes of a record in one datagram
static EVP_CIPHER_CTX *sealing, *opening;

static uint64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void nonce_of(uint64_t counter, uint8_t nonce[12]) {
    memset(nonce, 0, 4);
    memcpy(nonce + 4, &counter, 8);
}

// One super-packet from the device to the network; 0 when there is none.
static int send_one(void) {
    static uint8_t plain[LARGEST], sealed[LARGEST];
    static struct header headers[PIECES];
    static struct iovec parts[2 * PIECES];
    static uint64_t counter;
    ssize_t got = read(tun, plain, sizeof plain);
    if (got <= 0) return 0;
    uint8_t nonce[12];
    int size, last;
    nonce_of(++counter, nonce);
    EVP_EncryptInit_ex(sealing, NULL, NULL, NULL, nonce);
    EVP_EncryptUpdate(sealing, sealed, &size, plain, got);
    EVP_EncryptFinal_ex(sealing, sealed + size, &last);
    EVP_CIPHER_CTX_ctrl(sealing, EVP_CTRL_AEAD_GET_TAG, TAG, sealed + size);
    size += TAG;
    int count = 0;
    for (int at = 0; at < size && count < PIECES; at += piece, count++) {
        headers[count] = (struct header){.counter = counter, .length = size, .offset = at};
        parts[2 * count] = (struct iovec){&headers[count], HEADER};
        parts[2 * count + 1] = (struct iovec){sealed + at, size - at < piece ? size - at : piece};
    }
    char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2 * count};
    if (count > 1) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
        *segment = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), IPPROTO_UDP, UDP_SEGMENT};
        *(uint16_t *)CMSG_DATA(segment) = piece + HEADER;
    }
    sendmsg(udp, &message, 0);  // what the kernel has no room for is lost, as in any network
    return 1;
}

// Open one whole record and hand the packet to the device.
static void deliver(uint64_t counter, uint8_t *record, int size) {
    static uint8_t plain[LARGEST];
    uint8_t nonce[12];
    int length, last;
    nonce_of(counter, nonce);
    EVP_DecryptInit_ex(opening, NULL, NULL, NULL, nonce);
    EVP_CIPHER_CTX_ctrl(opening, EVP_CTRL_AEAD_SET_TAG, TAG, record + size - TAG);
    EVP_DecryptUpdate(opening, plain, &length, record, size - TAG);
    if (EVP_DecryptFinal_ex(opening, plain + length, &last) == 1 && write(tun, plain, length) < 0 && errno != EAGAIN)
        warn("the device refuses a packet");
}

// Pieces of a record that came in more than one receive: kept until it is whole, in order or not.
static void collect(const struct header *header, const uint8_t *bytes, int size) {
    static uint8_t record[LARGEST];
    static uint64_t counter;
    static uint32_t have;
    if (header->counter != counter) counter = header->counter, have = 0;
    if (header->length > LARGEST || size < 0 || header->offset + (uint64_t)size > header->length) return;
    memcpy(record + header->offset, bytes, size);
    have += size;
    if (have == header->length) deliver(counter, record, have);
}

// One receive, of one datagram or of many that GRO has merged; 0 when there is none.
static int receive_one(void) {
    static uint8_t flat[LARGEST], record[LARGEST];
    static struct header headers[PIECES];
    static struct iovec parts[2 * PIECES];
    char control[CMSG_SPACE(sizeof(int))];
    for (int i = 0; i < PIECES && !parts[2 * i].iov_len; i++) {  // once
        int room = LARGEST - i * piece;
        parts[2 * i] = (struct iovec){&headers[i], HEADER};
        parts[2 * i + 1] = (struct iovec){record + i * piece, room < 0 ? 0 : room < piece ? room : piece};
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2 * PIECES, .msg_control = control,
                             .msg_controllen = sizeof control};
    int got = recvmsg(udp, &message, 0), segment = got;
    if (got < 0) return errno == ECONNREFUSED;
    struct cmsghdr *merged = CMSG_FIRSTHDR(&message);
    if (merged && merged->cmsg_level == IPPROTO_UDP && merged->cmsg_type == UDP_GRO) segment = *(int *)CMSG_DATA(merged);
    int count = (got + segment - 1) / (segment ? segment : 1), bytes = got - count * HEADER;
    if (bytes < TAG) return 1;
    if (count == 1 || segment == piece + HEADER) {
        int whole = headers[0].offset == 0 && (int)headers[0].length == bytes;
        if (whole) deliver(headers[0].counter, record, bytes);
        if (whole) return 1;
    }
    // Otherwise walk it by its segment size: lay it flat, as the kernel had it.
    int left = got, filled = 0;
    for (int i = 0; i < 2 * PIECES && left > 0; i++) {
        int take = left < (int)parts[i].iov_len ? left : (int)parts[i].iov_len;
        memcpy(flat + filled, parts[i].iov_base, take);
        filled += take, left -= take;
    }
    for (int at = 0; at + HEADER < filled; at += segment) {
        struct header header;
        memcpy(&header, flat + at, HEADER);
        collect(&header, flat + at + HEADER, (filled - at < segment ? filled - at : segment) - HEADER);
    }
    return 1;
}

static void make_device(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request)) err(1, "%s", name);
    unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if (ioctl(tun, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) && ioctl(tun, TUNSETOFFLOAD, offloads))
        err(1, "no offloads");
}

static void make_socket(const char *own, const char *peer, int port) {
    int one = 1, size = 8 << 20, six = strchr(own, ':') != NULL;
    struct sockaddr_storage ends[2] = {0};
    const char *texts[2] = {own, peer};
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in *v4 = (void *)&ends[i];
        struct sockaddr_in6 *v6 = (void *)&ends[i];
        if (six) v6->sin6_family = AF_INET6, v6->sin6_port = htons(port);
        else v4->sin_family = AF_INET, v4->sin_port = htons(port);
        if (inet_pton(six ? AF_INET6 : AF_INET, texts[i], six ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr) != 1)
            errx(2, "%s: no address", texts[i]);
    }
    socklen_t length = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    udp = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(udp, IPPROTO_UDP, UDP_GRO, &one, sizeof one);
    if (bind(udp, (void *)&ends[0], length) || connect(udp, (void *)&ends[1], length)) err(1, "%s", own);
}

int main(int argc, char **argv) {
    static const uint8_t key[32] = "fixed, for it protects nothing.";
    if (argc != 6) errx(2, "yardstick DEVICE ADDRESS PEER PORT MTU");
    make_device(argv[1]);
    make_socket(argv[2], argv[3], atoi(argv[4]));
    // A full segment with virtio header and tag is exactly one datagram.
    piece = atoi(argv[5]) + VNET + TAG;
    sealing = EVP_CIPHER_CTX_new();
    opening = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(sealing, EVP_aes_256_gcm(), NULL, key, NULL);
    EVP_DecryptInit_ex(opening, EVP_aes_256_gcm(), NULL, key, NULL);
    int poller = epoll_create1(0), fds[2] = {tun, udp};
    for (int i = 0; i < 2; i++) epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &(struct epoll_event){.events = EPOLLIN});
    puts("ready");
    fflush(stdout);
    for (uint64_t worked = 0;;) {
        int any = 0;
        for (int i = 0; i < BATCH && send_one(); i++) any = 1;
        for (int i = 0; i < BATCH && receive_one(); i++) any = 1;
        if (any) worked = nanoseconds();
        else if (nanoseconds() - worked < POLL_NS) sched_yield();
        else epoll_wait(poller, &(struct epoll_event){0}, 1, -1);
    }
}
