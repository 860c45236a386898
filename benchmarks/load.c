/* The load that the network rows put on a server: a client that never sleeps while it measures.

       load PORT [--tls] [--bare] [--deflate]
                                        a client; it takes commands on stdin, and prints "ok" after each
       load --answer FD SIZE            a server's end of one connection, for blocking clients to be measured by

   Commands:

       open COUNT                       open connections until there are so many
       echo CONNECTIONS IN_FLIGHT SIZE MESSAGES
                                        send MESSAGES binary messages of SIZE bytes over the first CONNECTIONS,
                                        IN_FLIGHT at once on each, and read as many answers
       check CONNECTIONS IN_FLIGHT SIZE do so once on each connection, and compare the answers byte by byte
       broadcast SIZE ROUNDS            send a message on the last connection, and read it on all; ROUNDS times
       handshakes COUNT AT_ONCE         open and close COUNT new connections, AT_ONCE at a time
       trips COUNT MESSAGE ANSWER       send the frames of one message from the file MESSAGE, and read the message
                                        that comes back in any number of frames; COUNT times on the first
                                        connection. The payload of the first goes to the file ANSWER

   With --deflate the client offers permessage-deflate, as plainly as possible.

   A client that sleeps is woken by the server's write(), and the kernel charges that to the server: 1 to 2
   microseconds for each message. So this one polls. Between commands it sleeps in read().

   While it measures, it looks at the length of the answers only. Any mistake ends the process with a line on
   stderr. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

#define TIMEOUT 60 /* seconds that a command may make no progress */
#define MAX_EVENTS 1024
#define CHUNK (1 << 20)

#define HEADERS \
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static const char *request = HEADERS "\r\n";
static const char *deflate_request = HEADERS "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
static const unsigned char CLOSE[] = {0x88, 0x82, 1, 2, 3, 4, 1 ^ 0x03, 2 ^ 0xe8};

enum step { CONNECTING, OPENING, CLOSING }; /* of a handshake */

struct connection {
    int fd;
    SSL *ssl;
    size_t unsent, unread; /* of the batch that is under way */
    int writes;            /* whether epoll waits until it can be written to */
    enum step step;
    char head[4];          /* the last bytes of a response that is being read */
};

static struct sockaddr_in address;
static int is_tls, is_bare;
static struct connection **connections;
static size_t opened;
static int epoll;
static time_t last_progress;
static unsigned char *scratch;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static time_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    return time.tv_sec;
}

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory) fail("out of memory");
    return memory;
}

/* One read or write that does not wait. Returns the number of bytes, 0 if it would wait, -1 at the end. */

#ifdef TLS
static SSL_CTX *context;

static SSL *start_tls(int fd) {
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) fail("the TLS handshake failed");
    return ssl;
}

static ssize_t tls_result(struct connection *connection, int result) {
    if (result > 0) return result;
    switch (SSL_get_error(connection->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return 0;
    default: ERR_clear_error(); return -1;
    }
}
#endif

static ssize_t result_of(ssize_t result) {
    if (result > 0) return result;
    return result < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t receive(struct connection *connection, void *buffer, size_t size) {
#ifdef TLS
    if (connection->ssl) return tls_result(connection, SSL_read(connection->ssl, buffer, size));
#endif
    return result_of(recv(connection->fd, buffer, size, 0));
}

static ssize_t transmit(struct connection *connection, const void *buffer, size_t size) {
#ifdef TLS
    if (connection->ssl) return tls_result(connection, SSL_write(connection->ssl, buffer, size));
#endif
    return result_of(send(connection->fd, buffer, size, MSG_NOSIGNAL));
}

/* Frames (RFC 6455, section 5.2) */

struct exchange {
    unsigned char *frames, *answers; /* as many as are in flight */
    size_t frame, answer, in_flight;
};

static size_t write_header(unsigned char *to, size_t size, int masked) {
    to[0] = 0x82;
    if (size < 126) {
        to[1] = size | masked;
        return 2;
    }
    int bytes = size < 65536 ? 2 : 8;
    to[1] = (bytes == 2 ? 126 : 127) | masked;
    for (int i = 0; i < bytes; i++) to[2 + i] = size >> 8 * (bytes - 1 - i);
    return 2 + bytes;
}

static struct exchange make_exchange(size_t size, size_t in_flight) {
    struct exchange made = {.in_flight = in_flight};
    unsigned char *frame = allocate(size + 14), *answer = allocate(size + 14), key[] = {7, 99, 202, 31};
    size_t header = write_header(frame, size, 0x80), short_header = write_header(answer, size, 0);
    memcpy(frame + header, key, 4);
    unsigned random = 1;
    for (size_t i = 0; i < size; i++) {
        random = random * 1664525 + 1013904223;
        answer[short_header + i] = random >> 24;
        frame[header + 4 + i] = random >> 24 ^ key[i % 4];
    }
    made.frame = header + 4 + size;
    made.answer = is_bare ? made.frame : short_header + size;
    made.frames = allocate(made.frame * in_flight);
    made.answers = allocate(made.answer * in_flight);
    for (size_t i = 0; i < in_flight; i++) {
        memcpy(made.frames + i * made.frame, frame, made.frame);
        memcpy(made.answers + i * made.answer, is_bare ? frame : answer, made.answer);
    }
    free(frame);
    free(answer);
    return made;
}

static void free_exchange(struct exchange *exchange) {
    free(exchange->frames);
    free(exchange->answers);
}

/* Opening */

static int new_socket(int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0), on = 1;
    if (fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    return fd;
}

static void open_connection(void) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) fail("out of memory");
    connection->fd = new_socket(0);
    struct timeval timeout = {TIMEOUT, 0};
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
#ifdef TLS
    if (is_tls) connection->ssl = start_tls(connection->fd);
#endif
    if (transmit(connection, request, strlen(request)) != (ssize_t)strlen(request)) fail("the request was not sent");
    char head[4096];
    size_t size = 0;
    while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4)) {
        ssize_t count = size < sizeof head - 1 ? receive(connection, head + size, sizeof head - 1 - size) : -1;
        if (count <= 0) fail("closed during the opening handshake");
        size += count;
    }
    head[size] = 0;
    if (strncmp(head, "HTTP/1.1 101 ", 13)) fail("%.*s", (int)strcspn(head, "\r"), head);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    connections[opened++] = connection;
}

static void open_up_to(size_t count) {
    connections = realloc(connections, count * sizeof *connections);
    if (!connections) fail("out of memory");
    while (opened < count) open_connection();
}

/* Events */

static int poll_events(struct epoll_event *events) {
    int count;
    for (unsigned spins = 0; !(count = epoll_wait(epoll, events, MAX_EVENTS, 0)); spins++)
        if (spins % 4096 == 0 && now() - last_progress > TIMEOUT) fail("no answer for %d seconds", TIMEOUT);
    if (count < 0) fail("epoll_wait: %s", strerror(errno));
    last_progress = now();
    return count;
}

static void watch_writing(struct connection *connection, int writes) {
    if (connection->writes == writes) return;
    connection->writes = writes;
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event);
}

static void write_batch(struct connection *connection, struct exchange *exchange) {
    size_t size = exchange->frame * exchange->in_flight;
    while (connection->unsent) {
        ssize_t count = transmit(connection, exchange->frames + size - connection->unsent, connection->unsent);
        if (count < 0) fail("the server closed the connection");
        if (!count) break;
        connection->unsent -= count;
    }
    watch_writing(connection, connection->unsent > 0);
}

static void start_batch(struct connection *connection, struct exchange *exchange) {
    connection->unsent = exchange->frame * exchange->in_flight;
    connection->unread = exchange->answer * exchange->in_flight;
    write_batch(connection, exchange);
}

/* Read what is there of the answers. Every byte is compared if is_first. */
static void read_batch(struct connection *connection, struct exchange *exchange, int is_first) {
    while (connection->unread) {
        size_t size = connection->unread < CHUNK ? connection->unread : CHUNK;
        ssize_t count = receive(connection, scratch, size);
        if (count < 0) fail("the server closed the connection");
        if (!count) return;
        if (is_first) {
            size_t done = exchange->answer * exchange->in_flight - connection->unread;
            if (memcmp(scratch, exchange->answers + done, count)) fail("the server sent something else back");
        }
        connection->unread -= count;
        if (!connection->ssl && (size_t)count < size) return;
    }
}

static void echo_rounds(size_t count, struct exchange *exchange, size_t batches, int is_first) {
    size_t started = 0, waiting = 0;
    struct epoll_event events[MAX_EVENTS];
    for (; started < count && started < batches; started++, waiting++)
        start_batch(connections[started], exchange);
    while (waiting) {
        int ready = poll_events(events);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection->unsent) write_batch(connection, exchange);
            if (!connection->unread) {
                if (events[i].events & EPOLLIN && receive(connection, scratch, 1)) fail("the server closed, or sent too much");
                continue;
            }
            read_batch(connection, exchange, is_first);
            if (connection->unread) continue;
            if (started < batches) {
                start_batch(connection, exchange);
                started++;
            } else {
                waiting--;
            }
        }
    }
}

static void echo(size_t count, size_t in_flight, size_t size, size_t batches, int is_first) {
    if (count > opened) fail("only %zu connections are open", opened);
    struct exchange exchange = make_exchange(size, in_flight);
    echo_rounds(count, &exchange, batches, is_first);
    free_exchange(&exchange);
}

static void broadcast(size_t size, size_t rounds) {
    static int is_checked;
    struct exchange exchange = make_exchange(size, 1);
    struct epoll_event events[MAX_EVENTS];
    /* When the server reads what the last one sends, it knows all that were opened before. */
    struct connection *sender = connections[opened - 1];
    while (rounds--) {
        for (size_t i = 0; i < opened; i++) connections[i]->unread = exchange.answer;
        sender->unsent = exchange.frame;
        write_batch(sender, &exchange);
        for (size_t waiting = opened; waiting;) {
            int ready = poll_events(events);
            for (int i = 0; i < ready; i++) {
                struct connection *connection = events[i].data.ptr;
                if (!connection->unread) continue;
                read_batch(connection, &exchange, !is_checked);
                if (!connection->unread) waiting--;
            }
        }
        is_checked = 1;
    }
    free_exchange(&exchange);
}

/* Round trips of one message, whatever frames the server makes of it */

struct message {
    unsigned char *bytes;
    size_t size, room;
};

static struct message read_file(const char *name) {
    struct message message = {0};
    FILE *file = fopen(name, "rb");
    if (!file) fail("cannot open %s: %s", name, strerror(errno));
    fseek(file, 0, SEEK_END);
    message.size = ftell(file);
    rewind(file);
    message.bytes = allocate(message.size);
    if (fread(message.bytes, 1, message.size, file) != message.size) fail("cannot read %s", name);
    fclose(file);
    return message;
}

static void write_file(const char *name, const unsigned char *bytes, size_t size) {
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) fail("cannot write %s", name);
}

/* Take the frame at `start` out of what was received. Returns its first byte, or -1 if it is not there whole.
   The payload is moved to `payload`, which then stands behind it. */
static int take_frame(struct message *received, size_t *start, size_t *payload) {
    const unsigned char *frame = received->bytes + *start;
    size_t there = received->size - *start, header = 2;
    if (there < 2) return -1;
    if (frame[1] > 125) header += frame[1] == 126 ? 2 : 8;
    if (there < header) return -1;
    size_t size = header == 2 ? frame[1] : 0;
    for (size_t i = 2; i < header; i++) size = size << 8 | frame[i];
    if (there < header + size) return -1;
    int first = frame[0];
    memmove(received->bytes + *payload, frame + header, size);
    *payload += size;
    *start += header + size;
    return first;
}

/* Read one message, and leave its payload in `received`. */
static void read_message(struct connection *connection, struct exchange *exchange, struct message *received) {
    struct epoll_event events[MAX_EVENTS];
    size_t start = 0, payload = 0;
    received->size = 0;
    for (;;) {
        poll_events(events);
        if (connection->unsent) write_batch(connection, exchange);
        ssize_t count;
        do {
            if (received->room - received->size < CHUNK) {
                received->room += 4 * CHUNK;
                received->bytes = realloc(received->bytes, received->room);
                if (!received->bytes) fail("out of memory");
            }
            count = receive(connection, received->bytes + received->size, CHUNK);
            if (count < 0) fail("the server closed the connection");
            received->size += count;
        } while (count);
        for (int first; (first = take_frame(received, &start, &payload)) >= 0;) {
            if (first & 8) fail("the server sent a control frame");
            if (!(first & 0x80)) continue;
            if (start != received->size) fail("the server sent too much");
            received->size = payload;
            return;
        }
    }
}

static void trips(size_t count, const char *message, const char *answer) {
    if (!opened) fail("no connection is open");
    struct message sent = read_file(message), received = {0};
    struct exchange exchange = {.frames = sent.bytes, .frame = sent.size, .in_flight = 1};
    for (size_t i = 0; i < count; i++) {
        connections[0]->unsent = sent.size;
        write_batch(connections[0], &exchange);
        read_message(connections[0], &exchange, &received);
        if (!i) write_file(answer, received.bytes, received.size);
    }
    free(sent.bytes);
    free(received.bytes);
}

/* Opening and closing handshakes */

static void begin_handshake(int poll) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) fail("out of memory");
    connection->fd = new_socket(SOCK_NONBLOCK);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, connection->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

/* Go on with a handshake. Returns whether it is over. */
static int go_on(int poll, struct connection *connection) {
    unsigned char buffer[4096];
    if (connection->step == CONNECTING) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poll, EPOLL_CTL_MOD, connection->fd, &event);
        if (transmit(connection, request, strlen(request)) != (ssize_t)strlen(request)) fail("the request was not sent");
        connection->step = OPENING;
        return 0;
    }
    ssize_t count = receive(connection, buffer, sizeof buffer);
    if (!count) return 0;
    if (connection->step == OPENING) {
        if (count < 0) fail("closed during the opening handshake");
        if (!connection->head[3] && strncmp((char *)buffer, "HTTP/1.1 101 ", 13)) fail("not a 101: %.40s", buffer);
        for (ssize_t i = 0; i < count; i++) { /* keep the last four bytes */
            memmove(connection->head, connection->head + 1, 3);
            connection->head[3] = buffer[i];
        }
        if (memcmp(connection->head, "\r\n\r\n", 4)) return 0;
        if (transmit(connection, CLOSE, sizeof CLOSE) != sizeof CLOSE) fail("the Close was not sent");
        connection->step = CLOSING;
        connection->unread = 4; /* the Close that comes back, with its code */
        return 0;
    }
    if (count > 0) {
        if (connection->unread == 4 && buffer[0] != 0x88) fail("no Close came back");
        connection->unread -= (size_t)count < connection->unread ? (size_t)count : connection->unread;
        return 0;
    }
    if (connection->unread) fail("closed without a Close");
    close(connection->fd);
    free(connection);
    return 1;
}

static void handshakes(size_t count, size_t at_once) {
    int poll = epoll_create1(0), keep = epoll;
    struct epoll_event events[MAX_EVENTS];
    size_t begun = 0, over = 0;
    epoll = poll;
    for (; begun < count && begun < at_once; begun++) begin_handshake(poll);
    while (over < count) {
        int ready = poll_events(events);
        for (int i = 0; i < ready; i++) {
            if (!go_on(poll, events[i].data.ptr)) continue;
            over++;
            if (begun < count) begin_handshake(poll), begun++;
        }
    }
    epoll = keep;
    close(poll);
}

/* Answer each message of SIZE bytes of a blocking client with as many zeros. */
static int answer(int fd, size_t size) {
    struct connection connection = {.fd = fd};
    size_t frame = size + 6, answer = size + 2, unread = frame;
    if (size > 125) fail("answers have at most 125 bytes");
    memset(scratch, 0, answer);
    scratch[0] = 0x82;
    scratch[1] = size;
    unsigned char buffer[4096];
    fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, ready;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    for (;;) {
        /* Between two turns of the measurement it must not spin. */
        int is_there = 0;
        for (int spins = 0; spins < 20000 && !is_there; spins++) is_there = epoll_wait(epoll, &ready, 1, 0);
        if (!is_there) epoll_wait(epoll, &ready, 1, -1);
        ssize_t count = receive(&connection, buffer, unread < sizeof buffer ? unread : sizeof buffer);
        if (count < 0) return 0;
        if (count && unread == frame && buffer[0] == 0x88) {
            transmit(&connection, "\x88\x02\x03\xe8", 4);
            return 0;
        }
        unread -= count;
        if (unread) continue;
        unread = frame;
        if (transmit(&connection, scratch, answer) != (ssize_t)answer) fail("the answer was not sent");
    }
}

int main(int argc, char **argv) {
    scratch = allocate(CHUNK);
    if (argc == 4 && !strcmp(argv[1], "--answer")) return answer(atoi(argv[2]), atoi(argv[3]));
    if (argc < 2) fail("usage: load PORT [--tls] [--bare] [--deflate]");
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--tls")) is_tls = 1;
        else if (!strcmp(argv[i], "--bare")) is_bare = 1;
        else if (!strcmp(argv[i], "--deflate")) request = deflate_request;
        else fail("unknown option: %s", argv[i]);
    }
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    if (is_tls) fail("built without OpenSSL: its headers are not installed");
#endif
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    epoll = epoll_create1(0);
    char line[1024], message[400], reply[400];
    size_t a, b, c, d;
    while (fgets(line, sizeof line, stdin)) {
        last_progress = now();
        if (sscanf(line, "open %zu", &a) == 1) open_up_to(a);
        else if (sscanf(line, "echo %zu %zu %zu %zu", &a, &b, &c, &d) == 4) echo(a, b, c, d / b, 0);
        else if (sscanf(line, "check %zu %zu %zu", &a, &b, &c) == 3) echo(a, b, c, a, 1);
        else if (sscanf(line, "broadcast %zu %zu", &a, &b) == 2) broadcast(a, b);
        else if (sscanf(line, "handshakes %zu %zu", &a, &b) == 2) handshakes(a, b);
        else if (sscanf(line, "trips %zu %399s %399s", &a, message, reply) == 3) trips(a, message, reply);
        else fail("unknown command: %s", line);
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
