/* The limit of the machine: the least that a server of one thread does, with epoll and no library.
 *
 *   limit ROLE
 *
 * ROLE is echo, sink, source or udp: what load.c calls tcp and connect, sink, source, udp.  Prints
 * the port that it has been given, and serves until standard input ends.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 262144, MOST = 100000, BACKLOG = 1024 };

static char buffer[CHUNK];
static char *piece;
static uint64_t left[MOST]; /* sink: bytes to come, by descriptor */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t number(const char *where)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | (unsigned char)where[i];
    return value;
}

/* The load generator reads whatever else it does, so waiting for it here ends. */
static void put_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = write(fd, data, size);
        if (sent < 0) {
            if (errno != EAGAIN)
                return;
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
            continue;
        }
        data += sent;
        size -= sent;
    }
}

static void echo(int fd, size_t got)
{
    put_all(fd, buffer, got);
}

static void sink(int fd, size_t got)
{
    if (!left[fd]) {
        left[fd] = number(buffer);
        got -= 8;
    }
    left[fd] -= got;
    if (!left[fd])
        put_all(fd, ".", 1);
}

static void source(int fd, size_t got)
{
    uint64_t total = number(buffer), size = number(buffer + 8);
    (void)got;
    piece = realloc(piece, size);
    memset(piece, 0, size);
    for (; total; total -= size) {
        if (size > total)
            size = total;
        put_all(fd, piece, size);
    }
}

static void serve_udp(int fd)
{
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        struct pollfd wait[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        poll(wait, 2, -1);
        if (wait[1].revents)
            exit(0);
        ssize_t got;
        while ((got = recvfrom(fd, buffer, CHUNK, 0, (struct sockaddr *)&peer, &length)) >= 0)
            sendto(fd, buffer, got, 0, (struct sockaddr *)&peer, length);
    }
}

int main(int count, char **words)
{
    if (count != 2)
        return 2;
    void (*serve)(int, size_t) = !strcmp(words[1], "sink")     ? sink
                                 : !strcmp(words[1], "source") ? source
                                                               : echo;
    int udp = !strcmp(words[1], "udp"), one = 1;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < MOST ? limit.rlim_max : MOST;
    setrlimit(RLIMIT_NOFILE, &limit);

    int listener = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof here;
    if (bind(listener, (struct sockaddr *)&here, length) || (!udp && listen(listener, BACKLOG)))
        fail("listen");
    getsockname(listener, (struct sockaddr *)&here, &length);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    if (udp)
        serve_udp(listener);

    int epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == 0)
                return 0;
            if (fd == listener) {
                int made;
                while ((made = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    event.data.fd = made;
                    left[made] = 0;
                    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, made, &event);
                }
                continue;
            }
            ssize_t got = read(fd, buffer, CHUNK);
            if (got > 0)
                serve(fd, got);
            else if (got == 0 || errno != EAGAIN)
                close(fd);
        }
    }
}
