/* The load generator: it is in C so that it is never what is measured.
 *
 *   load [-t] [-r] [-s SIZE] [-p PREFIXES] MODE HOST PORT
 *
 * MODE    tcp      echo requests over many connections, a closed loop: each connection sends a
 *                  message, waits until as many bytes have come back, and sends the next
 *         udp      the same with datagrams; what is lost is sent again after a second
 *         connect  connections: each is opened, echoes one message and is closed
 *         sink     bulk data to the server: 8 bytes that say how much, and the data, which the
 *                  server answers with one byte
 *         source   bulk data from the server: 16 bytes that say how much and in which pieces
 * -t      over TLS.  Nothing is verified: this end is only here to make work for the other.
 * -r      connect: resume the TLS session of an earlier connection
 * -s      bytes in a message
 * -p      how many framers the server has: so many lengths of 4 bytes go before each message
 *
 * What to do comes line by line on standard input, and each line is answered with one:
 *
 *   open N            have N connections                           ok SECONDS
 *   run COUNT ACTIVE  COUNT messages over the first ACTIVE of them ok SECONDS LOST RESUMED
 *                     (sink, source: COUNT bytes in pieces of ACTIVE)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

enum { CONNECTING, HANDSHAKE, EXCHANGE };
enum { PATIENCE = 20000, RESEND = 1000 }; /* milliseconds */
enum { CHUNK = 1 << 20, BATCH = 64 };

struct peer {
    int fd, state, writing;
    SSL *ssl;
    size_t to_send, to_receive;
};

static const char *mode;
static struct sockaddr_in server;
static char *message, *sink;
static size_t message_size = 1024, prefixes;
static int tls, resume, udp, epoll_fd;
static struct peer *peers;
static long opened, lost, resumed;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
#ifdef WITH_TLS
    ERR_print_errors_fp(stderr);
#endif
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* -- TLS, or the lack of it: put() and get() answer 0 if they would have to wait -- */

#ifdef WITH_TLS
static SSL_CTX *context;
static SSL_SESSION *session;

static int keep_session(SSL *ssl, SSL_SESSION *made)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = made;
    return 1;
}

static void begin_tls(void)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (resume) {
        SSL_CTX_set_session_cache_mode(context,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
}

static SSL *new_tls(int fd)
{
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    SSL_set_tlsext_host_name(ssl, "localhost");
    if (resume && session)
        SSL_set_session(ssl, session);
    return ssl;
}

static int waits(struct peer *peer, int result)
{
    int why = SSL_get_error(peer->ssl, result);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        fail("TLS");
    return 0;
}

static int shake_hands(struct peer *peer)
{
    int result = SSL_connect(peer->ssl);
    if (result != 1)
        return waits(peer, result);
    resumed += SSL_session_reused(peer->ssl);
    return 1;
}

static void end_tls(struct peer *peer)
{
    SSL_shutdown(peer->ssl);
    SSL_free(peer->ssl);
    peer->ssl = NULL;
    ERR_clear_error();
}
#else
static void begin_tls(void)
{
    fprintf(stderr, "load: built without TLS\n");
    exit(1);
}
static SSL *new_tls(int fd) { (void)fd; return NULL; }
static int shake_hands(struct peer *peer) { (void)peer; return 1; }
static void end_tls(struct peer *peer) { (void)peer; }
#endif

static size_t put(struct peer *peer, const char *data, size_t size)
{
#ifdef WITH_TLS
    if (peer->ssl) {
        int result = SSL_write(peer->ssl, data, size > CHUNK ? CHUNK : (int)size);
        return result > 0 ? result : waits(peer, result);
    }
#endif
    ssize_t result = write(peer->fd, data, size);
    if (result < 0 && errno != EAGAIN)
        fail("write");
    return result < 0 ? 0 : result;
}

static size_t get(struct peer *peer, size_t size)
{
#ifdef WITH_TLS
    if (peer->ssl) {
        int result = SSL_read(peer->ssl, sink, size);
        return result > 0 ? result : waits(peer, result);
    }
#endif
    ssize_t result = read(peer->fd, sink, size);
    if (result == 0 && !udp)
        errno = ECONNRESET;
    if (result == 0 && !udp)
        fail("the server has ended the connection");
    if (result < 0 && errno != EAGAIN)
        fail("read");
    return result < 0 ? 0 : result;
}

/* -- Sockets -- */

static int new_socket(void)
{
    int one = 1, fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (fd < 0)
        fail("socket");
    if (!udp)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void watch(struct peer *peer, int how, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(epoll_fd, how, peer->fd, &event))
        fail("epoll_ctl");
}

static void connect_blocking(struct peer *peer)
{
    peer->fd = new_socket();
    if (connect(peer->fd, (struct sockaddr *)&server, sizeof server))
        fail("connect");
    if (tls) {
        peer->ssl = new_tls(peer->fd);
        shake_hands(peer);
    }
}

/* -- tcp and udp: a closed loop over open connections -- */

static void push(struct peer *peer)
{
    while (peer->to_send) {
        size_t sent = put(peer, message + message_size - peer->to_send, peer->to_send);
        if (!sent) {
            if (!peer->writing)
                watch(peer, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            peer->writing = 1;
            return;
        }
        peer->to_send -= sent;
    }
    if (peer->writing)
        watch(peer, EPOLL_CTL_MOD, EPOLLIN);
    peer->writing = 0;
}

static void request(struct peer *peer)
{
    peer->to_send = peer->to_receive = message_size;
    push(peer);
}

/* Whether an answer is complete. */
static int pull(struct peer *peer)
{
    do {
        size_t got = get(peer, CHUNK);
        if (!got)
            return 0;
        if (!peer->to_receive)
            continue; /* an answer to a datagram that was sent twice */
        peer->to_receive -= got < peer->to_receive ? got : peer->to_receive;
    } while (peer->ssl && peer->to_receive);
    return !peer->to_receive && !peer->to_send;
}

static void exchange(struct peer *first, long count, long requests)
{
    long started = 0, done = 0;
    for (; started < count && started < requests; started++)
        request(&first[started]);
    while (done < requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, udp ? RESEND : PATIENCE);
        if (ready < 0)
            fail("epoll_wait");
        if (!ready && !udp) {
            errno = ETIMEDOUT;
            fail("no answer");
        }
        if (!ready) {
            for (long i = 0; i < count; i++)
                if (first[i].to_receive) {
                    lost++;
                    request(&first[i]);
                }
            if (lost > 1000) {
                errno = ETIMEDOUT;
                fail("too many datagrams are lost");
            }
        }
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                push(peer);
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !pull(peer))
                continue;
            done++;
            if (started < requests) {
                started++;
                request(peer);
            }
        }
    }
}

/* The server has accepted all of them when this returns. */
static void open_peers(long wanted)
{
    while (opened < wanted) {
        long first = opened;
        while (opened < wanted && opened < first + BATCH) {
            struct peer *peer = &peers[opened++];
            connect_blocking(peer);
            if (strcmp(mode, "sink") && strcmp(mode, "source")) {
                fcntl(peer->fd, F_SETFL, O_NONBLOCK);
                watch(peer, EPOLL_CTL_ADD, EPOLLIN);
            }
        }
        if (strcmp(mode, "sink") && strcmp(mode, "source"))
            exchange(&peers[first], opened - first, opened - first);
    }
}

/* -- connect: each connection serves for one message -- */

static void begin(struct peer *peer)
{
    peer->fd = new_socket();
    fcntl(peer->fd, F_SETFL, O_NONBLOCK);
    peer->state = CONNECTING;
    if (connect(peer->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fail("connect");
    watch(peer, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT | EPOLLET);
}

/* Whether the connection has done its work. */
static int go_on(struct peer *peer, unsigned events)
{
    if (peer->state == CONNECTING) {
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return 0;
        socklen_t size = sizeof errno;
        getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &errno, &size);
        if (errno)
            fail("connect");
        peer->state = tls ? HANDSHAKE : EXCHANGE;
        peer->ssl = tls ? new_tls(peer->fd) : NULL;
        peer->to_send = peer->to_receive = message_size;
    }
    if (peer->state == HANDSHAKE) {
        if (!shake_hands(peer))
            return 0;
        peer->state = EXCHANGE;
    }
    while (peer->to_send) {
        size_t sent = put(peer, message + message_size - peer->to_send, peer->to_send);
        if (!sent)
            return 0;
        peer->to_send -= sent;
    }
    while (peer->to_receive) {
        size_t got = get(peer, CHUNK);
        if (!got)
            return 0;
        peer->to_receive -= got;
    }
    return 1;
}

static void come_and_go(long count, long active)
{
    long started = 0, done = 0;
    for (; started < active && started < count; started++)
        begin(&peers[started]);
    while (done < count) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, PATIENCE);
        if (ready <= 0)
            fail("no answer");
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!go_on(peer, events[i].events))
                continue;
            if (peer->ssl)
                end_tls(peer);
            close(peer->fd);
            done++;
            if (started < count) {
                started++;
                begin(peer);
            }
        }
    }
}

/* -- sink and source: one connection, blocking -- */

static void put_number(char *where, unsigned long number, int width)
{
    for (int i = 0; i < width; i++)
        where[i] = (char)(number >> (8 * (width - 1 - i)));
}

static void put_all(struct peer *peer, const char *data, size_t size)
{
    while (size) {
        size_t sent = put(peer, data, size);
        data += sent;
        size -= sent;
    }
}

static void bulk(long total, long piece)
{
    char head[16];
    put_number(head, total, 8);
    put_number(head + 8, piece, 8);
    if (!strcmp(mode, "source")) {
        put_all(&peers[0], head, 16);
        for (long left = total; left;)
            left -= get(&peers[0], left < CHUNK ? left : CHUNK);
        return;
    }
    char *data = calloc(1, piece);
    put_all(&peers[0], head, 8);
    for (long left = total; left;) {
        size_t size = left < piece ? left : piece;
        put_all(&peers[0], data, size);
        left -= size;
    }
    free(data);
    get(&peers[0], 1);
}

/* -- What we are told -- */

static void prepare_message(void)
{
    size_t data = message_size;
    message_size += 4 * prefixes;
    message = malloc(message_size);
    memset(message, 'x', message_size);
    for (size_t i = 0; i < prefixes; i++)
        put_number(message + 4 * i, data + 4 * (prefixes - 1 - i), 4);
    sink = malloc(CHUNK);
}

int main(int count, char **words)
{
    int option;
    while ((option = getopt(count, words, "trs:p:")) != -1) {
        if (option == 't')
            tls = 1;
        else if (option == 'r')
            resume = 1;
        else if (option == 's')
            message_size = atol(optarg);
        else if (option == 'p')
            prefixes = atol(optarg);
        else
            return 2;
    }
    if (count - optind != 3) {
        fprintf(stderr, "usage: load [-t] [-r] [-s SIZE] [-p PREFIXES] MODE HOST PORT\n");
        return 2;
    }
    mode = words[optind];
    udp = !strcmp(mode, "udp");
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(words[optind + 2]));
    inet_pton(AF_INET, words[optind + 1], &server.sin_addr);

    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 100000 ? limit.rlim_max : 100000;
    setrlimit(RLIMIT_NOFILE, &limit);
    peers = calloc(limit.rlim_cur, sizeof *peers);
    epoll_fd = epoll_create1(0);
    prepare_message();
    if (tls)
        begin_tls();

    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        long first, second;
        double begun = seconds();
        lost = resumed = 0;
        if (sscanf(line, "open %ld", &first) == 1) {
            if (first > (long)limit.rlim_cur - 64) {
                errno = EMFILE;
                fail("open");
            }
            open_peers(first);
        } else if (sscanf(line, "run %ld %ld", &first, &second) == 2) {
            if (!strcmp(mode, "connect"))
                come_and_go(first, second);
            else if (!strcmp(mode, "sink") || !strcmp(mode, "source"))
                bulk(first, second);
            else
                exchange(peers, second < opened ? second : opened, first);
        } else {
            fprintf(stderr, "load: what is %s", line);
            return 2;
        }
        printf("ok %.6f %ld %ld\n", seconds() - begun, lost, resumed);
        fflush(stdout);
    }
    return 0;
}
