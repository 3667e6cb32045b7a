// The loads that must cost little themselves: ping-pong over TCP, floods of UDP datagrams.
//
//   load pong PORT                     echo each TCP connection, one after the other
//   load ping ADDRESS PORT SECONDS     64 bytes there and back; prints "COUNT P50 P99", the last two in us
//   load sink PORT                     count UDP datagrams until 0.5 s of silence; prints "COUNT SECONDS"
//   load flood ADDRESS PORT BYTES SECONDS   send UDP payloads as fast as the kernel takes them; prints how many
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, MOST = 1 << 22, BATCH = 32, LARGEST = 65536, SILENCE_MS = 500 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int connected(const char *address, const char *port, int kind) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port))};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int is_six = inet_pton(AF_INET6, address, &six.sin6_addr) == 1;
    if (!is_six && inet_pton(AF_INET, address, &four.sin_addr) != 1) errx(2, "%s: no address", address);
    int fd = socket(is_six ? AF_INET6 : AF_INET, kind, 0);
    struct sockaddr *to = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    if (fd < 0 || connect(fd, to, is_six ? sizeof six : sizeof four)) err(1, "%s port %s", address, port);
    return fd;
}

static int bound(const char *port, int kind) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port))};
    int one = 1, fd = socket(AF_INET6, kind, 0);  // takes IPv4 too: net.ipv6.bindv6only is 0 by default
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any)) err(1, "port %s", port);
    return fd;
}

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int pong(const char *port) {
    char data[SIZE];
    int listener = bound(port, SOCK_STREAM), fd;
    if (listen(listener, 8)) err(1, "listen");
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        no_delay(fd);
        for (ssize_t n; (n = recv(fd, data, sizeof data, 0)) > 0;)
            if (send(fd, data, n, MSG_NOSIGNAL) != n) break;
        close(fd);
    }
    err(1, "accept");
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int ping(const char *address, const char *port, double seconds) {
    static float times[MOST];
    char data[SIZE] = {0};
    int fd = connected(address, port, SOCK_STREAM), count = 0;
    no_delay(fd);
    double before = now(), warm = before + seconds / 10;  // the first tenth is not counted
    for (double end = before + seconds; before < end && count < MOST;) {
        if (send(fd, data, SIZE, MSG_NOSIGNAL) != SIZE) err(1, "send");
        if (recv(fd, data, SIZE, MSG_WAITALL) != SIZE) errx(1, "the connection was closed");
        double after = now();
        if (before > warm) times[count++] = (after - before) * 1e6;
        before = after;
    }
    if (count < 1) errx(1, "not one round trip in %g s", seconds);
    qsort(times, count, sizeof *times, ascending);
    printf("%d %.2f %.2f\n", count, times[count / 2], times[(int)(count * 0.99)]);
    return 0;
}

static int sink(const char *port) {
    static char data[BATCH][LARGEST / BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    struct pollfd wait = {.fd = bound(port, SOCK_DGRAM), .events = POLLIN};
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){data[i], sizeof data[i]};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int buffer = 4 << 20;  // what is lost shall be lost on the way, not at the end of it
    setsockopt(wait.fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    puts("ready");
    fflush(stdout);
    long count = 0;
    double first = 0, last = 0;
    while (poll(&wait, 1, count ? SILENCE_MS : -1) > 0) {
        int n = recvmmsg(wait.fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0) continue;
        last = now();
        if (!count) first = last;
        count += n;
    }
    printf("%ld %.6f\n", count, last - first);
    return 0;
}

static int flood(const char *address, const char *port, int size, double seconds) {
    static char data[LARGEST];
    struct iovec part = {data, size};
    struct mmsghdr messages[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    int fd = connected(address, port, SOCK_DGRAM);
    long count = 0;
    for (double end = now() + seconds; now() < end;) {
        int n = sendmmsg(fd, messages, BATCH, 0);
        if (n > 0) count += n;
        else if (errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED) err(1, "send");
    }
    printf("%ld\n", count);
    return 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "pong") && argc == 3) return pong(argv[2]);
    if (!strcmp(verb, "ping") && argc == 5) return ping(argv[2], argv[3], atof(argv[4]));
    if (!strcmp(verb, "sink") && argc == 3) return sink(argv[2]);
    if (!strcmp(verb, "flood") && argc == 6) return flood(argv[2], argv[3], atoi(argv[4]), atof(argv[5]));
    errx(2, "pong PORT | ping ADDRESS PORT SECONDS | sink PORT | flood ADDRESS PORT BYTES SECONDS");
}
