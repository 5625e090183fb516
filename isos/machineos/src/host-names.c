/*
 * host-names ADDRESS PORT SERVER SERVER-PORT HOST [MARK [FILE]]: a DNS server that tells the address of the host.
 *
 * It listens on the port of ADDRESS, by UDP and TCP, answers host.docker.internal and gateway.docker.internal with the
 * IPv4 address HOST, and passes all other queries and their answers on unchanged. MARK is set on the packets to SERVER,
 * so that the rule that leads other programs' queries here leaves these alone.
 *
 * FILE, if it exists, holds "ADDRESS PORT" of the server that knows the names of other machines. It is asked for names
 * of one label and for those below machine.internal. SERVER is asked for the former, too, if that server doesn't know.
 *
 * Three processes: the parent holds the sockets and only starts its children again, one for UDP and one for TCP, which do
 * the work. Queries that arrive in between wait in the sockets, so no client notices. Each TCP connection has a process.
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
#define TRUNCATED 0x02 /* of the third byte */
#define LONGEST_LABEL 63
#define SERVFAIL 2
#define LARGEST 65535
/* Seconds that a client may remember the answer: the address never changes. */
#define TTL 60
/* Queries that wait for an answer at the same time, and the milliseconds that each waits. */
#define MOST 256
#define PATIENCE_MS 10000
/* As long waits a query for the server of the machines' names, and so large it may be. */
#define MACHINES_MS 2000
#define MACHINES_QUERY 512
#define PAUSE_US 50000
/* TCP connections at the same time: a client takes one when an answer is too long for UDP. */
#define STREAMS 32

static const uint8_t *const NAMES[] = {
    (const uint8_t *)"\4host\6docker\10internal",
    (const uint8_t *)"\7gateway\6docker\10internal",
};

/* The name below which machines have theirs. */
static const uint8_t MACHINES[] = "\7machine\10internal";

enum place {
    ELSEWHERE,    /* SERVER alone knows it */
    PERHAPS_OURS, /* one label: it may be a machine's name, or one that SERVER knows */
    OURS,         /* below machine.internal */
};

/* Of what SERVER alone is asked, only the header is kept. */
struct query {
    struct sockaddr_in client;
    long deadline;
    enum place place;
    size_t size;
    uint8_t message[MACHINES_QUERY];
};

static struct sockaddr_in server;
static struct in_addr host;
static int stream_listener;
static struct sockaddr_in own;
static unsigned int mark;
static const char *machines_file;
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

/* Whose name a query asks for. Each label has its length before it; an empty one ends the name. */
static enum place place_of(const uint8_t *message, size_t size)
{
    size_t at = HEADER, labels = 0;

    if (size < HEADER || size > MACHINES_QUERY || message[2] & 0xf8 || number(message + 4) != 1)
        return ELSEWHERE;
    while (at < size && message[at]) {
        if (message[at] > LONGEST_LABEL)
            return ELSEWHERE;
        if (labels && size - at >= sizeof MACHINES &&
            !strncasecmp((const char *)message + at, (const char *)MACHINES, sizeof MACHINES))
            return OURS;
        at += message[at] + 1U;
        labels++;
    }
    return labels == 1 && at < size ? PERHAPS_OURS : ELSEWHERE;
}

/* The server of the machines' names. The file changes when the machine gets another network, or none. */
static bool find_machines_server(struct sockaddr_in *found)
{
    char address[INET_ADDRSTRLEN];
    unsigned short port;
    FILE *file = machines_file ? fopen(machines_file, "re") : NULL;
    bool is_there;

    if (!file)
        return false;
    *found = (struct sockaddr_in){.sin_family = AF_INET};
    is_there = fscanf(file, "%15s %hu", address, &port) == 2 && inet_pton(AF_INET, address, &found->sin_addr) == 1;
    found->sin_port = is_there ? htons(port) : 0;
    fclose(file);
    return is_there;
}

/* A connected socket: it has a random port, and the kernel drops what others than that server send to it. */
static int connect_to(const struct sockaddr_in *whom, int type)
{
    int made = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    if (made < 0)
        return -1;
    if ((mark && setsockopt(made, SOL_SOCKET, SO_MARK, &mark, sizeof mark)) ||
        connect(made, (const struct sockaddr *)whom, sizeof *whom)) {
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

/* A socket over which the message has gone to that server, or -1. */
static int send_to(const struct sockaddr_in *whom, const uint8_t *message, size_t size)
{
    int made = connect_to(whom, SOCK_DGRAM | SOCK_NONBLOCK);

    if (made >= 0 && send(made, message, size, 0) < 0) {
        close(made);
        return -1;
    }
    return made;
}

static void pass_on(const struct sockaddr_in *client, uint8_t *message, size_t size)
{
    struct sockaddr_in machines;
    enum place place;
    int upstream;

    if (size < HEADER)
        return;
    place = place_of(message, size);
    if (place != ELSEWHERE && !find_machines_server(&machines))
        place = ELSEWHERE;
    /* All places are taken: the oldest query has waited longest. The order of places isn't that of age. */
    if (used == 1 + MOST) {
        nfds_t oldest = 1;
        for (nfds_t which = 2; which < used; which++)
            if (queries[which].deadline < queries[oldest].deadline)
                oldest = which;
        forget(oldest);
    }
    upstream = send_to(place == ELSEWHERE ? &server : &machines, message, size);
    if (upstream < 0) {
        refuse(client, message);
        return;
    }
    ends[used] = (struct pollfd){.fd = upstream, .events = POLLIN};
    queries[used].client = *client;
    queries[used].deadline = now_ms() + (place == ELSEWHERE ? PATIENCE_MS : MACHINES_MS);
    queries[used].place = place;
    queries[used].size = place == ELSEWHERE ? HEADER : size;
    memcpy(queries[used].message, message, queries[used].size);
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

/* Asks SERVER, too, for what the machines' server doesn't know, or doesn't say. Returns whether it was asked. */
static bool ask_server_too(nfds_t which)
{
    int upstream;

    if (queries[which].place != PERHAPS_OURS)
        return false;
    upstream = send_to(&server, queries[which].message, queries[which].size);
    if (upstream < 0)
        return false;
    close(ends[which].fd);
    ends[which] = (struct pollfd){.fd = upstream, .events = POLLIN};
    queries[which].place = ELSEWHERE;
    queries[which].deadline = now_ms() + PATIENCE_MS;
    return true;
}

/* Returns false if the query still waits for an answer. */
static bool take_answer(nfds_t which, uint8_t *message)
{
    ssize_t size = recv(ends[which].fd, message, LARGEST, MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if ((size < HEADER || message[3] & 0x0f) && ask_server_too(which))
        return false;
    if (size < 0)
        refuse(&queries[which].client, queries[which].message);
    else
        reply(&queries[which].client, message, (size_t)size);
    return true;
}

static bool is_over(nfds_t which, long now)
{
    return queries[which].deadline < now && !ask_server_too(which);
}

static void serve_datagrams(void)
{
    static uint8_t message[LARGEST + ANSWER];
    long now;

    for (;;) {
        if (poll(ends, used, used > 1 ? 1000 : -1) < 0)
            continue;
        now = now_ms();
        /* Backwards, because `forget` moves the last one to the place of the one that ends. */
        for (nfds_t which = used - 1; which > 0; which--)
            if ((ends[which].revents && take_answer(which, message)) || is_over(which, now))
                forget(which);
        if (ends[0].revents)
            take_query(message);
    }
}

/* A message with its length before it (RFC 1035, 4.2.2); 0 at the end of the connection. */
static size_t take_message(int from, uint8_t *message)
{
    uint8_t length[2];

    if (recv(from, length, sizeof length, MSG_WAITALL) != sizeof length ||
        recv(from, message, number(length), MSG_WAITALL) != (ssize_t)number(length))
        return 0;
    return number(length);
}

static bool send_message(int to, const uint8_t *message, size_t size)
{
    uint8_t length[2];

    put_number(length, (unsigned int)size);
    return send(to, length, sizeof length, MSG_MORE | MSG_NOSIGNAL) == sizeof length &&
           send(to, message, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Answers one query after the other as UDP does; what is too long for that, the server tells over a connection. */
static void carry(int client)
{
    static uint8_t query[LARGEST], message[LARGEST];
    size_t size;
    ssize_t answered;
    int datagrams = connect_to(&own, SOCK_DGRAM), upstream = -1;

    while (datagrams >= 0) {
        alarm(PATIENCE_MS / 1000);
        size = take_message(client, query);
        if (size < HEADER || send(datagrams, query, size, 0) < 0)
            return;
        answered = recv(datagrams, message, LARGEST, 0);
        if (answered >= HEADER && message[2] & TRUNCATED) {
            if (upstream < 0)
                upstream = connect_to(&server, SOCK_STREAM);
            answered = upstream >= 0 && send_message(upstream, query, size) ? (ssize_t)take_message(upstream, message) : 0;
        }
        if (answered < HEADER || !send_message(client, message, (size_t)answered))
            return;
    }
}

/* Runs job in a child, which ends with its parent: it would keep the port from the next one. */
static pid_t begin(void (*job)(int), int argument)
{
    pid_t parent = getpid(), child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            job(argument);
        _exit(0);
    }
    return child;
}

static void wake(int signal)
{
    (void)signal;
}

static void serve_streams(void)
{
    /* Without SA_RESTART: a child that ends wakes `accept4`, and is waited for. */
    struct sigaction ended = {.sa_handler = wake};
    int running = 0, client;

    sigaction(SIGCHLD, &ended, NULL);
    for (;;) {
        client = accept4(stream_listener, NULL, NULL, SOCK_CLOEXEC);
        while (running > 0 && waitpid(-1, NULL, running < STREAMS ? WNOHANG : 0) > 0)
            running--;
        if (client < 0) {
            usleep(PAUSE_US);
            continue;
        }
        if (begin(carry, client) > 0)
            running++;
        close(client);
    }
}

static void serve(int type)
{
    if (type == SOCK_STREAM)
        serve_streams();
    else
        serve_datagrams();
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

static int opened(int type)
{
    int made = socket(AF_INET, type | SOCK_CLOEXEC, 0), on = 1;

    /* A connection of an earlier process may not have ended. */
    if (made < 0 || (type == SOCK_STREAM && setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)) ||
        bind(made, (const struct sockaddr *)&own, sizeof own) || (type == SOCK_STREAM && listen(made, STREAMS)))
        die("the port can't be opened");
    return made;
}

int main(int count, char **words)
{
    pid_t datagrams = 0, streams = 0, ended;

    if (count < 6 || count > 8) {
        fprintf(stderr, "usage: host-names ADDRESS PORT SERVER SERVER-PORT HOST [MARK [FILE]]\n");
        return 2;
    }
    own = address_of(words[1], words[2]);
    server = address_of(words[3], words[4]);
    host = address_of(words[5], "0").sin_addr;
    mark = count >= 7 ? (unsigned int)atoi(words[6]) : 0;
    machines_file = count == 8 ? words[7] : NULL;
    ends[0] = (struct pollfd){.fd = opened(SOCK_DGRAM), .events = POLLIN};
    stream_listener = opened(SOCK_STREAM);
    for (;;) {
        if (datagrams <= 0)
            datagrams = begin(serve, SOCK_DGRAM);
        if (streams <= 0)
            streams = begin(serve, SOCK_STREAM);
        ended = waitpid(-1, NULL, 0);
        if (ended == datagrams)
            datagrams = 0;
        if (ended == streams)
            streams = 0;
        usleep(PAUSE_US);
    }
}
