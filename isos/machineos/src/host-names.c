/*
 * host-names ADDRESS PORT SERVER SERVER-PORT HOST [MARK]: a DNS server that tells the address of the host.
 *
 * It listens on the UDP port of ADDRESS, answers host.docker.internal and gateway.docker.internal with the IPv4 address
 * HOST, and passes all other queries and their answers on unchanged. MARK is set on the packets to SERVER, so that the
 * rule that leads other programs' queries here leaves these alone.
 *
 * Two processes: the parent holds the socket and only starts the child again, which does the work. Queries that arrive
 * in between wait in the socket, so no client notices.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The layout of a message (RFC 1035, 4.1). */
#define HEADER 12
#define QUESTION_END 4 /* type and class, after the name */
#define ANSWER 16      /* a pointer to the name, type, class, time to live, length, IPv4 address */
#define TYPE_A 1
#define TYPE_ANY 255
#define CLASS_IN 1
#define SERVFAIL 2
#define LARGEST 65535
/* Seconds that a client may remember the answer: the address never changes. */
#define TTL 60
/* Queries that wait for an answer at the same time, and the milliseconds that each waits. */
#define MOST 256
#define PATIENCE_MS 10000
#define PAUSE_US 50000

static const uint8_t *const NAMES[] = {
    (const uint8_t *)"\4host\6docker\10internal",
    (const uint8_t *)"\7gateway\6docker\10internal",
};

struct query {
    struct sockaddr_in client;
    long deadline;
    uint8_t header[HEADER];
};

static struct sockaddr_in server;
static struct in_addr host;
static unsigned int mark;
/* ends[0] is the listener; ends[n] is the socket to the server of queries[n]. */
static struct pollfd ends[1 + MOST];
static struct query queries[1 + MOST];
static nfds_t used = 1;

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static unsigned int number(const uint8_t *at)
{
    return (unsigned int)at[0] << 8 | at[1];
}

static void put_number(uint8_t *at, unsigned int value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* The size of header and question if the message is a query for one of the names, else 0. */
static size_t question_for_us(const uint8_t *message, size_t size)
{
    size_t length;

    /* One question, and neither a response nor another operation than a query. */
    if (size < HEADER || message[2] & 0xf8 || number(message + 4) != 1)
        return 0;
    for (size_t which = 0; which < sizeof NAMES / sizeof *NAMES; which++) {
        length = strlen((const char *)NAMES[which]) + 1;
        /* The lengths of the labels are below 'A', so comparing without case compares them too. */
        if (size >= HEADER + length + QUESTION_END &&
            !strncasecmp((const char *)message + HEADER, (const char *)NAMES[which], length) &&
            number(message + HEADER + length + 2) == CLASS_IN)
            return HEADER + length + QUESTION_END;
    }
    return 0;
}

/* Makes the header of a response out of that of a query, with nothing after the question. */
static void make_response(uint8_t *message, unsigned int code)
{
    message[2] = (uint8_t)(0x80 | (message[2] & 0x01)); /* a response; recursion was desired or not */
    message[3] = (uint8_t)(0x80 | code);                /* recursion is available */
    memset(message + 6, 0, HEADER - 6);
}

/* Turns the query into its answer; returns the size. Other types than A exist for no name: their answer is empty. */
static size_t answer(uint8_t *message, size_t size)
{
    unsigned int type = number(message + size - QUESTION_END);
    uint8_t *at = message + size;

    make_response(message, 0);
    if (type != TYPE_A && type != TYPE_ANY)
        return size;
    put_number(message + 6, 1);
    put_number(at, 0xc000 | HEADER);
    put_number(at + 2, TYPE_A);
    put_number(at + 4, CLASS_IN);
    put_number(at + 6, 0);
    put_number(at + 8, TTL);
    put_number(at + 10, sizeof host);
    memcpy(at + 12, &host, sizeof host);
    return size + ANSWER;
}

static void reply(const struct sockaddr_in *client, const uint8_t *message, size_t size)
{
    sendto(ends[0].fd, message, size, 0, (const struct sockaddr *)client, sizeof *client);
}

static void forget(nfds_t which)
{
    close(ends[which].fd);
    used--;
    ends[which] = ends[used];
    queries[which] = queries[used];
}

/* A connected socket: it has a random port, and the kernel drops what others than the server send to it. */
static int connect_to_server(void)
{
    int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (made < 0)
        return -1;
    if ((mark && setsockopt(made, SOL_SOCKET, SO_MARK, &mark, sizeof mark)) ||
        connect(made, (const struct sockaddr *)&server, sizeof server)) {
        close(made);
        return -1;
    }
    return made;
}

/* Tells the client at once that there is no answer. Without the question, which a broken message may not hold. */
static void refuse(const struct sockaddr_in *client, uint8_t header[HEADER])
{
    make_response(header, SERVFAIL);
    put_number(header + 4, 0);
    reply(client, header, HEADER);
}

static void pass_on(const struct sockaddr_in *client, uint8_t *message, size_t size)
{
    int upstream;

    if (size < HEADER)
        return;
    /* All places are taken: the oldest query has waited longest. The order of places isn't that of age. */
    if (used == 1 + MOST) {
        nfds_t oldest = 1;
        for (nfds_t which = 2; which < used; which++)
            if (queries[which].deadline < queries[oldest].deadline)
                oldest = which;
        forget(oldest);
    }
    upstream = connect_to_server();
    if (upstream < 0 || send(upstream, message, size, 0) < 0) {
        if (upstream >= 0)
            close(upstream);
        refuse(client, message);
        return;
    }
    ends[used] = (struct pollfd){.fd = upstream, .events = POLLIN};
    queries[used] = (struct query){.client = *client, .deadline = now_ms() + PATIENCE_MS};
    memcpy(queries[used].header, message, HEADER);
    used++;
}

static void take_query(uint8_t *message)
{
    struct sockaddr_in client;
    socklen_t length = sizeof client;
    ssize_t size = recvfrom(ends[0].fd, message, LARGEST, MSG_DONTWAIT, (struct sockaddr *)&client, &length);
    size_t question;

    if (size < 0)
        return;
    question = question_for_us(message, (size_t)size);
    if (question)
        reply(&client, message, answer(message, question));
    else
        pass_on(&client, message, (size_t)size);
}

/* Returns false if the server has not answered yet. */
static bool take_answer(nfds_t which, uint8_t *message)
{
    ssize_t size = recv(ends[which].fd, message, LARGEST, MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (size < 0)
        refuse(&queries[which].client, queries[which].header);
    else
        reply(&queries[which].client, message, (size_t)size);
    return true;
}

static void work(void)
{
    static uint8_t message[LARGEST + ANSWER];
    long now;

    for (;;) {
        if (poll(ends, used, used > 1 ? 1000 : -1) < 0)
            continue;
        now = now_ms();
        /* Backwards, because `forget` moves the last one to the place of the one that ends. */
        for (nfds_t which = used - 1; which > 0; which--)
            if ((ends[which].revents && take_answer(which, message)) || queries[which].deadline < now)
                forget(which);
        if (ends[0].revents)
            take_query(message);
    }
}

static void die(const char *what)
{
    fprintf(stderr, "host-names: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};

    if (inet_pton(AF_INET, address, &made.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    return made;
}

int main(int count, char **words)
{
    struct sockaddr_in own;
    pid_t parent = getpid(), child;

    if (count < 6 || count > 7) {
        fprintf(stderr, "usage: host-names ADDRESS PORT SERVER SERVER-PORT HOST [MARK]\n");
        return 2;
    }
    own = address_of(words[1], words[2]);
    server = address_of(words[3], words[4]);
    host = address_of(words[5], "0").sin_addr;
    mark = count == 7 ? (unsigned int)atoi(words[6]) : 0;
    ends[0] = (struct pollfd){.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), .events = POLLIN};
    if (ends[0].fd < 0 || bind(ends[0].fd, (const struct sockaddr *)&own, sizeof own))
        die("the port can't be opened");
    for (;;) {
        child = fork();
        if (child == 0) {
            /* A child without its parent would keep the port from the next parent. */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                return 0;
            work();
        }
        if (child > 0)
            waitpid(child, NULL, 0);
        usleep(PAUSE_US);
    }
}
