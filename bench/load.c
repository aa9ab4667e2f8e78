/* A load generator that records every request; bench/load.py evaluates the records.
 *
 * Open loop (--stream PATH:RATE): requests are due at a fixed rate whether or not the server keeps up.
 * They wait in a queue while no connection is free, and are recorded with the time at which they were
 * due: latency from then has no coordinated omission.
 *
 * Closed loop (--stream PATH): each connection sends the next request as soon as it has an answer, for
 * an exact number of requests (--requests), so that the range of n is bounded.
 *
 * The thread polls without sleeping and needs its own core, unless it may --sleep. So no latency includes
 * a wake-up, and the server does not pay for one, which in a virtual machine takes microseconds of its
 * time per answer.
 *
 * The requests of a stream are the plainest possible, or (--request FILE after it) the bytes of a file,
 * with placeholders: NUL for a random hex digit, and \1 for the index in the last ETag on the connection
 * (0 before any). Servers may close after an answer.
 *
 * A record has the times at which the request was due, sent and answered (CLOCK_MONOTONIC, ns), and the
 * ETag, status and number, modulo 2^61-1 (or 2^64 with --uint64), of its answer. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "residue.h"

enum { MAX_STREAMS = 8, MAX_HEAD = 4096, MAX_REQUEST = 8192, SCRATCH = 1 << 18, EVENTS = 256 };
enum { NO_ANSWER = 0, MALFORMED = 1 };    /* statuses below any of HTTP's */
enum { RETRY_NS = 1000000 };              /* between two attempts to connect */
static const uint64_t SECOND = 1000000000;

struct record { uint64_t due, sent, done, index, residue; uint32_t stream, status; };

struct stream { char request[MAX_REQUEST], prefix[64]; size_t request_size, prefix_size;
                bool differs, closes; uint64_t interval, next_due; };

enum state { CLOSED, CONNECTING, IDLE, WAITING, CLOSING };
struct conn {
    int fd; enum state state; uint64_t retry_at;
    struct record record; bool checked;
    uint64_t last_index; bool closes;              /* of its last answer */
    size_t head_size; char head[MAX_HEAD];         /* only a head that came in pieces is copied */
    bool in_body; size_t body_size, body_done;
};

static struct stream streams[MAX_STREAMS];
static struct conn *conns, **idle;                 /* idle: a ring, so that all take their turn */
static size_t n_streams, n_conns = 1, idle_head, idle_size, n_connected, n_missing;
static struct { uint64_t due; uint32_t stream; } *queue;
static size_t queue_head, queue_size, queue_capacity;
static struct record *records;
static size_t n_records, record_capacity;
static uint64_t limit = UINT64_MAX, issued, outstanding, every = 1, opened, refused, lost;
static bool open_loop, sleeps;
static struct sockaddr_in address = {.sin_family = AF_INET};
static int epoll;
static char scratch[SCRATCH];

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void *grow(void *array, size_t *capacity, size_t needed, size_t item) {
    if (needed <= *capacity) return array;
    *capacity = needed * 2 > 4096 ? needed * 2 : 4096;
    if (!(array = realloc(array, *capacity * item))) die("out of memory");
    return array;
}

static void make_idle(struct conn *c) {
    c->state = IDLE;
    idle[(idle_head + idle_size++) % n_conns] = c;
}

static void connect_to(struct conn *c) {
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        refused++;
        close(c->fd);
        c->state = CLOSED;
        c->retry_at = now_ns() + RETRY_NS;
        return;
    }
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void finish(struct conn *c, uint32_t status) {
    c->record.status = status;
    c->record.done = now_ns();
    records = grow(records, &record_capacity, n_records + 1, sizeof *records);
    records[n_records++] = c->record;
    outstanding--;
}

static void lose(struct conn *c) {
    if (c->state == WAITING) { lost++; finish(c, NO_ANSWER); }
    if (c->state == IDLE) {                        /* rare: take it out of the ring */
        size_t kept = 0;
        for (size_t i = 0; i < idle_size; i++) {
            struct conn *other = idle[(idle_head + i) % n_conns];
            if (other != c) idle[(idle_head + kept++) % n_conns] = other;
        }
        idle_size = kept;
    }
    c->retry_at = 0;
    if (c->state == CONNECTING) {
        refused++;
        c->retry_at = now_ns() + RETRY_NS;
    } else {
        n_connected--;
        n_missing++;
    }
    close(c->fd);
    c->state = CLOSED;
}

/* Writes the stream's request, with its placeholders filled, to `out`; returns its size. */
static size_t fill(const struct stream *s, const struct conn *c, char *out) {
    static uint64_t random = 88172645463325252u, left;
    char *at = out;
    for (size_t i = 0; i < s->request_size; i++) {
        if (s->request[i] == 1) {
            at += sprintf(at, "%llu", (unsigned long long)c->last_index);
        } else if (s->request[i]) {
            *at++ = s->request[i];
        } else {
            if (!left) {                           /* xorshift64: Marsaglia, 2003 */
                random ^= random << 13, random ^= random >> 7, random ^= random << 17;
                left = random;
            }
            *at++ = "0123456789abcdef"[left & 15];
            left >>= 4;
        }
    }
    return (size_t)(at - out);
}

static void send_request(struct conn *c, uint32_t stream, uint64_t due) {
    struct stream *s = &streams[stream];
    c->record = (struct record){.due = due, .sent = now_ns(), .index = NONE, .stream = stream};
    if (!open_loop) c->record.due = c->record.sent;
    c->checked = issued++ % every == 0;
    c->record.residue = c->checked ? 0 : NONE;
    c->in_body = false;
    c->head_size = c->body_done = 0;
    c->state = WAITING;
    outstanding++;
    static char filled[MAX_REQUEST + 64];
    const char *data = s->differs ? filled : s->request;
    size_t size = s->differs ? fill(s, c, filled) : s->request_size;
    if (send(c->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) lose(c);
}

/* Parses status, length and ETag of a complete head; false if it has no length. */
static bool parse_head(struct conn *c, const char *head, size_t size) {
    const char *end = head + size;
    bool sized = false;
    if (size < 12 || memcmp(head, "HTTP/1.", 7)) return false;
    c->record.status = (uint32_t)atoi(head + 9);
    c->closes = streams[c->record.stream].closes;
    for (const char *line = head; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!strncasecmp(line, "content-length:", 15)) {
            c->body_size = strtoull(line + 15, NULL, 10);
            sized = true;
        } else if (!strncasecmp(line, "etag: \"", 7)) {
            c->record.index = c->last_index = strtoull(line + 7, NULL, 10);
        } else if (!strncasecmp(line, "connection: close", 17)) {
            c->closes = true;
        } else if (!strncasecmp(line, "connection: keep-alive", 22)) {
            c->closes = false;
        }
        line = stop ? stop + 1 : end;
    }
    c->in_body = true;
    return sized;
}

/* Checks `{"next": DIGITS}` as it arrives: no answer is stored. */
static void check_body(struct conn *c, const char *data, size_t size) {
    struct stream *s = &streams[c->record.stream];
    size_t at = c->body_done, last = c->body_size - 1;
    if (c->record.status != 200 || !c->checked || c->record.residue == NONE) return;
    for (; size && at < s->prefix_size; at++, data++, size--)
        if (*data != s->prefix[at]) { c->record.residue = NONE; return; }
    if (size && at + size > last) {
        if (data[size - 1] != '}') { c->record.residue = NONE; return; }
        size--;
    }
    c->record.residue = add_digits(c->record.residue, data, size);
}

static void receive(struct conn *c) {
    ssize_t got = recv(c->fd, scratch, SCRATCH, 0);
    char *data = scratch;
    size_t size;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || c->state != WAITING) { lose(c); return; }
    size = (size_t)got;
    if (!c->in_body) {
        char *end;
        size_t copied = c->head_size, head_size;
        const char *head = scratch;
        if (copied || !memmem(scratch, size, "\r\n\r\n", 4)) {
            size_t room = MAX_HEAD - copied, part = size < room ? size : room;
            memcpy(c->head + copied, scratch, part);
            c->head_size += part;
            head = c->head;
        }
        end = memmem(head, head == scratch ? size : c->head_size, "\r\n\r\n", 4);
        if (!end) {
            if (c->head_size == MAX_HEAD) lose(c);
            return;
        }
        head_size = (size_t)(end - head) + 4;
        if (!parse_head(c, head, head_size)) { finish(c, MALFORMED); c->state = IDLE; lose(c); return; }
        data += head_size - copied;
        size -= head_size - copied;
    }
    if (c->body_done + size > c->body_size) { finish(c, MALFORMED); c->state = IDLE; lose(c); return; }
    check_body(c, data, size);
    c->body_done += size;
    if (c->body_done < c->body_size) return;
    if (c->body_size < streams[c->record.stream].prefix_size + 2) c->record.residue = NONE;
    finish(c, c->record.status == 200 && c->checked && c->record.residue == NONE
                  ? MALFORMED : c->record.status);
    if (c->closes) { c->state = CLOSING; lose(c); }
    else make_idle(c);
}

static void on_event(struct conn *c, uint32_t events) {
    if (c->state == CONNECTING) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (events & (EPOLLERR | EPOLLHUP)) { lose(c); return; }
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
        opened++;
        n_connected++;
        n_missing--;
        make_idle(c);
    } else if (c->state != CLOSED) {
        receive(c);
    }
}

static void poll_events(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
    for (size_t i = 0; n_missing && i < n_conns; i++)
        if (conns[i].state == CLOSED && conns[i].retry_at <= now_ns()) connect_to(&conns[i]);
}

static void send_due(uint64_t now, uint64_t end) {
    for (uint32_t i = 0; i < n_streams; i++) {
        struct stream *s = &streams[i];
        if (!open_loop) continue;
        for (; s->next_due <= now && s->next_due < end; s->next_due += s->interval) {
            queue = grow(queue, &queue_capacity, queue_size + 1, sizeof *queue);
            queue[queue_size].due = s->next_due;
            queue[queue_size++].stream = i;
        }
    }
    while (idle_size && issued < limit && (open_loop ? queue_head < queue_size : now < end)) {
        struct conn *c = idle[idle_head];
        idle_head = (idle_head + 1) % n_conns;
        idle_size--;
        if (open_loop) send_request(c, queue[queue_head].stream, queue[queue_head].due);
        else send_request(c, (uint32_t)(issued % n_streams), 0);
        if (open_loop) queue_head++;
    }
}

static void add_stream(char *text) {               /* /next, or /next:1000 for so many a second */
    struct stream *s = &streams[n_streams++];
    char *colon = strchr(text, ':');
    if (n_streams > MAX_STREAMS || strlen(text) > 60) { errno = E2BIG; die(text); }
    if (colon) {
        *colon = 0;
        open_loop = true;
        if (atof(colon + 1) <= 0) { errno = EINVAL; die("a stream's rate"); }
        s->interval = (uint64_t)(1e9 / atof(colon + 1));
    }
    s->request_size = (size_t)sprintf(s->request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", text);
    s->prefix_size = (size_t)sprintf(s->prefix, "{\"%s\": ", text + 1);
}

static void set_request(const char *path) {        /* of the stream that was named last */
    struct stream *s = &streams[n_streams - 1];
    FILE *file = n_streams ? fopen(path, "rb") : NULL;
    if (!file) die(path);
    s->request_size = fread(s->request, 1, MAX_REQUEST, file);
    if (s->request_size == MAX_REQUEST) { errno = E2BIG; die(path); }
    s->closes = memmem(s->request, s->request_size, " HTTP/1.0\r\n", 11);  /* by default */
    s->differs = memchr(s->request, 0, s->request_size) || memchr(s->request, 1, s->request_size);
    fclose(file);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"stream", 1, 0, 's'}, {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 't'}, {"requests", 1, 0, 'n'}, {"check-every", 1, 0, 'e'},
        {"uint64", 0, 0, 'u'}, {"records", 1, 0, 'r'}, {"request", 1, 0, 'q'},
        {"sleep", 0, 0, 'w'}, {0}};
    const char *path = NULL;
    double seconds = 1;
    uint64_t begin, end, patience;
    FILE *file;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'p') address.sin_port = htons((uint16_t)atoi(optarg));
        else if (option == 's') add_stream(optarg);
        else if (option == 'q') set_request(optarg);
        else if (option == 'c') n_conns = strtoull(optarg, NULL, 10);
        else if (option == 't') seconds = atof(optarg);
        else if (option == 'n') limit = strtoull(optarg, NULL, 10);
        else if (option == 'e') every = strtoull(optarg, NULL, 10);
        else if (option == 'u') uint64_numbers = true;
        else if (option == 'r') path = optarg;
        else if (option == 'w') sleeps = true;
        else return 2;
    }
    if (!n_streams || !path || !n_conns || !every || seconds <= 0) {
        fprintf(stderr, "load: needs --port, --records and at least one --stream\n");
        return 2;
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((epoll = epoll_create1(0)) < 0) die("epoll_create1");
    conns = calloc(n_conns, sizeof *conns);
    idle = calloc(n_conns, sizeof *idle);
    if (!conns || !idle) die("out of memory");
    n_missing = n_conns;
    for (patience = now_ns() + 10 * SECOND; n_connected < n_conns;) {
        poll_events(10);
        if (now_ns() > patience) { errno = ETIMEDOUT; die("not all connections could be opened"); }
    }

    begin = now_ns();
    end = begin + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < n_streams; i++)         /* the streams' requests fall between each other */
        streams[i].next_due = begin + streams[i].interval * i / n_streams;
    patience = end + 10 * SECOND;                  /* then unanswered requests count as lost */
    for (uint64_t now = begin; now < patience; now = now_ns()) {
        send_due(now, end);
        bool more = issued < limit && (now < end || queue_head < queue_size);
        if (!more && !outstanding) break;
        poll_events(sleeps);
    }
    for (size_t i = 0; i < n_conns; i++)
        if (conns[i].state == WAITING) { lost++; finish(&conns[i], NO_ANSWER); }

    if (!(file = fopen(path, "wb"))) die(path);
    if (fwrite(records, sizeof *records, n_records, file) != n_records || fclose(file)) die(path);
    printf("{\"begin\": %llu, \"issued\": %llu, \"unsent\": %zu, \"opened\": %llu, "
           "\"refused\": %llu, \"lost\": %llu}\n", (unsigned long long)begin,
           (unsigned long long)issued, queue_size - queue_head, (unsigned long long)opened,
           (unsigned long long)refused, (unsigned long long)lost);
    return 0;
}
