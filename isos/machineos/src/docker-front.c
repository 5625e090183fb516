/*
 * docker-front PORT SOCKET [TLS-FOLDER]: opens Docker's port and forwards connections to dockerd's socket.
 *
 * With a folder (ca.pem, server.pem, server-key.pem), clients must use TLS and have a certificate of that CA. The
 * program checks for changed files at each connection: a renewed certificate needs no signal, and open connections go
 * on. Without a folder, it forwards the bytes unchanged.
 *
 * The header of an HTTP response always ends a TLS record. Clients that take over the connection after it ("101
 * UPGRADED") read the header through a buffer, and the rest directly: they would lose data that follows the header in
 * the same record. dockerd's own TLS never puts both into one record, and clients rely on it.
 *
 * Each connection has a thread, which sleeps in poll: a slow handshake or a client that doesn't read delays no others.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* The maximum size of a TLS record (RFC 8446, 5.1). */
#define RECORD 16384
/* Milliseconds: the limit for the TLS handshake (an interpreted processor needs minutes), and the limit for a client to
 * close the connection after dockerd has closed it. */
#define HANDSHAKE_MS 300000
#define FAREWELL_MS 30000
/* Seconds until TCP keepalive checks whether a silent client still exists. */
#define KEEPALIVE_S 60
#define STACK (128 * 1024)

enum { CA, CERTIFICATE, KEY, FILES };
static const char *const NAMES[FILES] = {"ca.pem", "server.pem", "server-key.pem"};

static const char *socket_path;
static const char *tls_folder;

/* ------------------------------------------------------------------------------------------- certificates */

struct stamp {
    ino_t inode;
    off_t size;
    struct timespec written, changed;
};

static SSL_CTX *context;
static struct stamp stamps[FILES];

static void complain(const char *what)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    syslog(LOG_WARNING, "%s: %s", what, reason ? reason : strerror(errno));
    ERR_clear_error();
}

static bool file_of(int which, char *path, size_t size)
{
    return snprintf(path, size, "%s/%s", tls_folder, NAMES[which]) < (int)size;
}

static bool look(struct stamp found[FILES])
{
    char path[256];
    struct stat about;

    memset(found, 0, FILES * sizeof *found);
    for (int which = 0; which < FILES; which++) {
        if (!file_of(which, path, sizeof path) || stat(path, &about))
            return false;
        found[which] = (struct stamp){about.st_ino, about.st_size, about.st_mtim, about.st_ctim};
    }
    return true;
}

static bool fill(SSL_CTX *made)
{
    char ca[256], certificate[256], key[256];

    if (!file_of(CA, ca, sizeof ca) || !file_of(CERTIFICATE, certificate, sizeof certificate) ||
        !file_of(KEY, key, sizeof key))
        return false;
    SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION);
    SSL_CTX_set_options(made, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(made, 0);
    SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(made, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    /* ChaCha20 first: it is faster where the processor has no AES instructions, as under emulation. */
    return SSL_CTX_set_ciphersuites(made, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") &&
           SSL_CTX_load_verify_locations(made, ca, NULL) &&
           SSL_CTX_use_certificate_chain_file(made, certificate) == 1 &&
           SSL_CTX_use_PrivateKey_file(made, key, SSL_FILETYPE_PEM) == 1 && SSL_CTX_check_private_key(made) == 1;
}

/* Tells clients which CA is accepted, so that a client with several certificates chooses the right one. */
static void name_authorities(SSL_CTX *made)
{
    char ca[256];
    STACK_OF(X509_NAME) *names = file_of(CA, ca, sizeof ca) ? SSL_load_client_CA_file(ca) : NULL;

    if (names)
        SSL_CTX_set_client_CA_list(made, names);
}

/* Reloads the files if they changed. During a renewal they may not match: then the old ones stay in use. */
static void refresh(void)
{
    struct stamp found[FILES];
    SSL_CTX *made;

    if (!look(found) || (context && !memcmp(found, stamps, sizeof stamps)))
        return;
    made = SSL_CTX_new(TLS_server_method());
    if (!made || !fill(made)) {
        complain("the certificate can't be used");
        SSL_CTX_free(made);
        return;
    }
    name_authorities(made);
    SSL_CTX_free(context); /* open connections hold references to it */
    context = made;
    memcpy(stamps, found, sizeof stamps);
}

/* ------------------------------------------------------------------------------------------- a connection */

struct flow {
    char data[RECORD];
    size_t start, end;
    bool ended; /* the source has closed: no more data follows */
    bool told;  /* this was passed on to the target */
};

enum { HEAD_SEEN = 4 };

struct connection {
    int client, engine;
    SSL *ssl;                 /* NULL: without TLS */
    struct flow up, down;     /* to the engine; to the client */
    size_t writing;           /* bytes of `down` that SSL_write was called with: the next call must repeat them */
    int read_wants, write_wants; /* what TLS waits for on the client's socket: POLLIN or POLLOUT */
    int head;                 /* bytes of "\r\n\r\n" seen: the end of a response's header */
    bool engine_gone;         /* dockerd has closed both directions */
};

enum outcome { DONE, WAIT, END, FAILED };

static enum outcome of_tls(SSL *ssl, int result, int *wants)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ: *wants = POLLIN; return WAIT;
    case SSL_ERROR_WANT_WRITE: *wants = POLLOUT; return WAIT;
    case SSL_ERROR_ZERO_RETURN: return END;
    case SSL_ERROR_SSL:
        /* TCP ended without TLS's close_notify. If the client is gone, the next write fails. */
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return END;
        return FAILED;
    default: return FAILED;
    }
}

static enum outcome of_socket(ssize_t result)
{
    if (result > 0)
        return DONE;
    if (result == 0)
        return END;
    return errno == EAGAIN || errno == EINTR ? WAIT : FAILED;
}

static enum outcome read_client(struct connection *c)
{
    ssize_t size;
    int result;

    if (!c->ssl) {
        size = recv(c->client, c->up.data, RECORD, 0);
        c->read_wants = POLLIN;
        if (size > 0)
            c->up.end = (size_t)size;
        return of_socket(size);
    }
    ERR_clear_error();
    result = SSL_read(c->ssl, c->up.data, RECORD);
    if (result <= 0)
        return of_tls(c->ssl, result, &c->read_wants);
    c->up.end = (size_t)result;
    return DONE;
}

static enum outcome write_client(struct connection *c, size_t size)
{
    ssize_t sent;
    int result;

    if (!c->ssl) {
        sent = send(c->client, c->down.data + c->down.start, size, MSG_NOSIGNAL);
        c->write_wants = POLLOUT;
        if (sent > 0)
            c->down.start += (size_t)sent;
        return of_socket(sent);
    }
    ERR_clear_error();
    result = SSL_write(c->ssl, c->down.data + c->down.start, (int)size);
    if (result <= 0)
        return of_tls(c->ssl, result, &c->write_wants);
    c->down.start += (size_t)result;
    return DONE;
}

/* Bytes of `down` that may go into one TLS record: up to the end of a response's header, else all. */
static size_t one_record(struct connection *c)
{
    size_t size = c->down.end - c->down.start;
    const char *data = c->down.data + c->down.start;

    for (size_t at = 0; c->ssl && at < size && c->head != HEAD_SEEN; at++) {
        if (data[at] == "\r\n\r\n"[c->head])
            c->head++;
        else
            c->head = data[at] == '\r';
        if (c->head == HEAD_SEEN)
            return at + 1;
    }
    return size;
}

static bool is_empty(const struct flow *flow)
{
    return flow->start == flow->end;
}

/* From the client to the engine. Returns false if the connection must be closed. */
static bool move_up(struct connection *c, bool *moved)
{
    enum outcome outcome;
    ssize_t size;

    c->read_wants = 0;
    if (is_empty(&c->up) && !c->up.ended) {
        c->up.start = c->up.end = 0;
        outcome = read_client(c);
        if (outcome == FAILED)
            return false;
        c->up.ended = outcome == END;
        *moved |= outcome != WAIT;
    }
    if (!is_empty(&c->up)) {
        size = send(c->engine, c->up.data + c->up.start, c->up.end - c->up.start, MSG_NOSIGNAL);
        if (size < 0 && errno != EAGAIN && errno != EINTR) {
            /* The engine reads no more. The client still gets what the engine has sent and will send. */
            c->up.ended = c->up.told = true;
            c->up.start = c->up.end;
        } else if (size > 0) {
            c->up.start += (size_t)size;
            c->head = 0; /* a request: a response with a header follows */
            *moved = true;
        }
    }
    if (c->up.ended && is_empty(&c->up) && !c->up.told) {
        c->up.told = true;
        shutdown(c->engine, SHUT_WR);
    }
    return true;
}

/* Sends close_notify and ends the direction to the client. Tried again later if the client isn't ready. */
static void farewell(struct connection *c)
{
    int result;

    if (c->ssl) {
        ERR_clear_error();
        result = SSL_shutdown(c->ssl);
        if (result < 0 && of_tls(c->ssl, result, &c->write_wants) == WAIT)
            return;
    }
    c->down.told = true;
    shutdown(c->client, SHUT_WR);
}

/* From the engine to the client. Returns false if the connection must be closed. */
static bool move_down(struct connection *c, bool *moved)
{
    ssize_t size;

    c->write_wants = 0;
    if (is_empty(&c->down) && !c->down.ended) {
        c->down.start = c->down.end = 0;
        size = recv(c->engine, c->down.data, RECORD, 0);
        if (size > 0)
            c->down.end = (size_t)size;
        else if (of_socket(size) != WAIT)
            c->down.ended = true;
        *moved |= size >= 0;
    }
    if (!is_empty(&c->down)) {
        if (!c->writing)
            c->writing = one_record(c);
        switch (write_client(c, c->writing)) {
        case DONE: c->writing = 0; *moved = true; break;
        case WAIT: break;
        default: return false;
        }
    }
    if (c->down.ended && is_empty(&c->down) && !c->down.told)
        farewell(c);
    return true;
}

/* Sleeps until one side is ready. Returns false if there is nothing more to wait for. */
static bool sleep_until_ready(struct connection *c)
{
    struct pollfd ends[] = {{.fd = c->client}, {.fd = c->engine}};
    struct pollfd *client = &ends[0], *engine = &ends[1];

    client->events = (short)(c->read_wants | c->write_wants);
    if (is_empty(&c->down) && !c->down.ended)
        engine->events |= POLLIN;
    if (!is_empty(&c->up))
        engine->events |= POLLOUT;
    /* poll always reports a hang-up: leave out a socket that we don't wait for, or this loop would spin. */
    if (!client->events && !c->up.ended)
        client->fd = -1;
    if (!engine->events && (!c->down.ended || c->engine_gone))
        engine->fd = -1;
    if (poll(ends, 2, c->engine_gone ? FAREWELL_MS : -1) == 0)
        return false;
    if (c->down.ended && engine->revents & (POLLHUP | POLLERR))
        c->engine_gone = true;
    return !(c->up.ended && client->revents & (POLLHUP | POLLERR));
}

static void pass_on(struct connection *c)
{
    bool moved;

    do {
        do {
            moved = false;
            if (!move_up(c, &moved) || !move_down(c, &moved))
                return;
        } while (moved);
        if (c->down.told && c->up.ended)
            return;
    } while (sleep_until_ready(c));
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static bool shake_hands(struct connection *c)
{
    struct pollfd end = {.fd = c->client};
    long left, deadline = now_ms() + HANDSHAKE_MS;
    int wants = 0, result;

    for (;;) {
        ERR_clear_error();
        result = SSL_accept(c->ssl);
        if (result == 1)
            return true;
        if (of_tls(c->ssl, result, &wants) != WAIT) {
            if (ERR_peek_error())
                complain("a client was refused");
            return false;
        }
        end.events = (short)wants;
        left = deadline - now_ms();
        if (left <= 0 || poll(&end, 1, (int)left) == 0)
            return false;
    }
}

static int call_engine(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int engine = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(name.sun_path, socket_path, sizeof name.sun_path - 1);
    if (engine >= 0 && (connect(engine, (struct sockaddr *)&name, sizeof name) || fcntl(engine, F_SETFL, O_NONBLOCK))) {
        close(engine);
        return -1;
    }
    return engine;
}

static void *serve(void *argument)
{
    struct connection *c = argument;

    if (!c->ssl || shake_hands(c)) {
        c->engine = call_engine();
        if (c->engine >= 0) {
            pass_on(c);
            close(c->engine);
        }
    }
    SSL_free(c->ssl);
    close(c->client);
    free(c);
    return NULL;
}

/* ------------------------------------------------------------------------------------------- the port */

static void die(const char *what)
{
    syslog(LOG_ERR, "%s: %s", what, strerror(errno));
    fprintf(stderr, "docker-front: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_port(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1, idle = KEEPALIVE_S;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0)
        die("socket");
    /* Connections inherit these from the listener. */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, SOMAXCONN))
        die("the port can't be opened");
    return listener;
}

static struct connection *begin(int client)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->client = client;
    c->engine = -1;
    if (!tls_folder)
        return c;
    refresh();
    c->ssl = context ? SSL_new(context) : NULL;
    if (!c->ssl || !SSL_set_fd(c->ssl, client)) {
        SSL_free(c->ssl);
        free(c);
        return NULL;
    }
    return c;
}

int main(int count, char **words)
{
    pthread_attr_t detached;
    pthread_t thread;
    struct connection *c;
    int listener, client;

    if (count < 3 || count > 4) {
        fprintf(stderr, "usage: docker-front PORT SOCKET [TLS-FOLDER]\n");
        return 2;
    }
    socket_path = words[2];
    tls_folder = count == 4 ? words[3] : NULL;
    openlog("docker-front", 0, LOG_DAEMON);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK);
    if (tls_folder)
        refresh();
    listener = open_port(words[1]);
    for (;;) {
        client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0) {
            /* Out of descriptors or memory: wait until other connections end. */
            if (errno != EINTR && errno != ECONNABORTED)
                usleep(100000);
            continue;
        }
        c = begin(client);
        if (!c || pthread_create(&thread, &detached, serve, c)) {
            if (c) {
                SSL_free(c->ssl);
                free(c);
            }
            close(client);
        }
    }
}
