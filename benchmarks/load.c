/* The load generator: a closed loop of echo requests over many TCP connections.
 *
 * Each connection sends one message, waits until as many bytes have come back, and sends the
 * next.  It is in C so that it is never what is measured.
 *
 *   load HOST PORT CONNECTIONS ACTIVE SIZE REQUESTS [PREFIX]
 *
 * Opens CONNECTIONS, of which the first ACTIVE exchange REQUESTS messages of SIZE bytes in all;
 * PREFIX (0, 1, 2, 4 or 8) is the width of a big-endian length in front of each.  Prints the
 * seconds that it took.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct peer {
    int fd;
    size_t to_send, to_receive;
};

static char *message, *sink;
static size_t message_size;
static int epoll_fd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void push(struct peer *peer)
{
    while (peer->to_send) {
        ssize_t sent = write(peer->fd, message + message_size - peer->to_send, peer->to_send);
        if (sent < 0) {
            if (errno != EAGAIN)
                fail("write");
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = peer};
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, peer->fd, &event);
            return;
        }
        peer->to_send -= sent;
    }
}

static void request(struct peer *peer)
{
    peer->to_send = peer->to_receive = message_size;
    push(peer);
}

static int connected(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, host, &address.sin_addr);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

int main(int count, char **words)
{
    if (count < 7) {
        fprintf(stderr, "usage: load HOST PORT CONNECTIONS ACTIVE SIZE REQUESTS [PREFIX]\n");
        return 2;
    }
    int connections = atoi(words[3]), active = atoi(words[4]);
    size_t size = atol(words[5]);
    long requests = atol(words[6]), started = 0, done = 0;
    int prefix = count > 7 ? atoi(words[7]) : 0;
    struct rlimit limit = {connections + 64, connections + 64};
    setrlimit(RLIMIT_NOFILE, &limit);

    message_size = size + prefix;
    message = malloc(message_size);
    sink = malloc(1 << 20);
    memset(message, 'x', message_size);
    for (int i = 0; i < prefix; i++)
        message[i] = (char)(size >> (8 * (prefix - 1 - i)));

    epoll_fd = epoll_create1(0);
    struct peer *peers = calloc(connections, sizeof *peers);
    for (int i = 0; i < connections; i++) {
        peers[i].fd = connected(words[1], atoi(words[2]));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &peers[i]};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, peers[i].fd, &event);
    }
    double begun = seconds();
    for (int i = 0; i < active && started < requests; i++, started++)
        request(&peers[i]);
    while (done < requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, 20000);
        if (ready <= 0)
            fail("nothing for 20 seconds");
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, peer->fd, &event);
                push(peer);
            }
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                continue;
            ssize_t got = read(peer->fd, sink, 1 << 20);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN)
                    continue;
                fail("the server has ended the connection");
            }
            peer->to_receive -= got;
            if (!peer->to_receive && !peer->to_send) {
                done++;
                if (started < requests) {
                    started++;
                    request(peer);
                }
            }
        }
    }
    printf("%.6f\n", seconds() - begun);
    return 0;
}
