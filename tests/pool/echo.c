/*
 * An echo server as a user would write it: one thread, one io_uring ring. Sockets and the pool complete in the same
 * loop: what a client sends is turned to capitals by a task, and its completion, a CQE among the others, starts the
 * reply.
 */
#include "cqe.h"
#include "life.h"
#include "pool/completion.h"

#include <ctype.h>
#include <liburing.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { CLIENTS = 6, MESSAGES = 60, LENGTH = 256 };
enum { ON_ACCEPT = 1, ON_RECEIVE, ON_SEND, ON_WORK, ON_MASK = 7 };

#define DOORBELL UINT64_C(0) /* the tag: no connection is at 0 */

struct server {
    struct io_uring ring;
    struct rp_pool *pool;
    struct rp_cq *cq;
    int listener;
    unsigned open, served;
    bool one_by_one;
    unsigned doorbells, works;
};

/* One client's, with one operation under way at any time. */
struct connection {
    struct rp_cq *cq;
    int fd;
    size_t length, sent;
    char text[LENGTH];
};

/* --- the work --------------------------------------------------------------------------------------------------- */

static void capitals(void *arg)
{
    struct connection *connection = arg;

    for (size_t i = 0; i < connection->length; i++)
        connection->text[i] = (char)toupper((unsigned char)connection->text[i]);
}

static uint64_t data_of(struct connection *connection, unsigned event)
{
    return (uintptr_t)connection | event;
}

static void work_start(struct server *server, struct connection *connection)
{
    struct rp_task task = {
        .fn = capitals, .arg = connection, .cq = server->cq, .user_data = data_of(connection, ON_WORK)};

    cr_assert_eq(rp_pool_submit_task(server->pool, &task), 0);
}

/* --- the loop --------------------------------------------------------------------------------------------------- */

static struct io_uring_sqe *next_sqe(struct server *server)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&server->ring);

    if (!sqe) {
        io_uring_submit(&server->ring);
        sqe = io_uring_get_sqe(&server->ring);
    }
    cr_assert_not_null(sqe);
    return sqe;
}

static void accept_start(struct server *server)
{
    struct io_uring_sqe *sqe = next_sqe(server);

    io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, ON_ACCEPT);
}

static void receive_start(struct server *server, struct connection *connection)
{
    struct io_uring_sqe *sqe = next_sqe(server);

    io_uring_prep_recv(sqe, connection->fd, connection->text, LENGTH, 0);
    io_uring_sqe_set_data64(sqe, data_of(connection, ON_RECEIVE));
}

static void send_start(struct server *server, struct connection *connection)
{
    struct io_uring_sqe *sqe = next_sqe(server);

    io_uring_prep_send(sqe, connection->fd, connection->text + connection->sent, connection->length - connection->sent,
                       MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, data_of(connection, ON_SEND));
}

static void accepted(struct server *server, int fd)
{
    struct connection *connection = aligned_alloc(64, (sizeof(*connection) + 63) & ~(size_t)63);

    cr_assert_geq(fd, 0);
    cr_assert_not_null(connection);
    *connection = (struct connection){.cq = server->cq, .fd = fd};
    receive_start(server, connection);
    server->open++;
    if (++server->served < CLIENTS)
        accept_start(server);
}

static void received(struct server *server, struct connection *connection, int n)
{
    if (n <= 0) {
        close(connection->fd);
        free(connection);
        server->open--;
        return;
    }
    connection->length = (size_t)n;
    connection->sent = 0;
    work_start(server, connection);
}

static void sent(struct server *server, struct connection *connection, int n)
{
    cr_assert_gt(n, 0);
    connection->sent += (size_t)n;
    if (connection->sent < connection->length)
        send_start(server, connection);
    else
        receive_start(server, connection);
}

static void on_event(struct server *server, uint64_t data, int res)
{
    struct connection *connection = (struct connection *)(uintptr_t)(data & ~(uint64_t)ON_MASK);

    switch (data & ON_MASK) {
    case ON_ACCEPT:
        accepted(server, res);
        break;
    case ON_RECEIVE:
        received(server, connection, res);
        break;
    case ON_SEND:
        sent(server, connection, res);
        break;
    case ON_WORK:
        cr_assert_eq(res, 0);
        server->works++;
        send_start(server, connection);
        break;
    }
}

static void doorbell_arm(struct server *server)
{
    int rc = rp_cq_arm(server->cq);

    if (rc == -EAGAIN) { /* the submission queue is full */
        io_uring_submit(&server->ring);
        rc = rp_cq_arm(server->cq);
    }
    cr_assert_geq(rc, 0);
}

/* The doorbell: takes what there is, and says that the next one may ring. */
static void on_doorbell(struct server *server)
{
    struct rp_completion out[8];
    int n;

    server->doorbells++;
    do {
        n = rp_cq_wait(server->cq, out, 8, 0, 0);
        cr_assert_geq(n, 0);
        for (int i = 0; i < n; i++)
            on_event(server, out[i].user_data, out[i].result);
    } while (n == 8);
    doorbell_arm(server);
}

static void serve(struct server *server)
{
    struct io_uring_cqe *cqe;

    accept_start(server);
    doorbell_arm(server);
    while (server->open || server->served < CLIENTS) {
        cr_assert(cqe_comes(&server->ring), "the loop waits in vain");
        while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
            uint64_t data = cqe->user_data;
            int res = cqe->res;
            io_uring_cqe_seen(&server->ring, cqe);
            if (data == DOORBELL)
                on_doorbell(server);
            else
                on_event(server, data, res);
            if (server->one_by_one && (data & ON_MASK) == ON_WORK)
                cr_assert_eq(rp_cq_seen(server->cq, 1), 0);
        }
    }
}

/* --- the clients ------------------------------------------------------------------------------------------------ */

struct client {
    struct sockaddr_in address;
    unsigned seed;
    _Atomic uint32_t failed;
    pthread_t thread;
};

static bool echo_once(int fd, unsigned *seed)
{
    char text[LENGTH], back[LENGTH];
    size_t n = 1 + (size_t)rand_r(seed) % LENGTH, got = 0;

    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + rand_r(seed) % 26);
    if (send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        return false;
    while (got < n) {
        ssize_t part = recv(fd, back + got, n - got, 0);
        if (part <= 0)
            return false;
        got += (size_t)part;
    }
    for (size_t i = 0; i < n; i++)
        if (back[i] != toupper(text[i]))
            return false;
    return true;
}

static void *client_main(void *arg)
{
    struct client *client = arg;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool well = fd >= 0 && connect(fd, (struct sockaddr *)&client->address, sizeof(client->address)) == 0;

    for (int i = 0; well && i < MESSAGES; i++)
        well = echo_once(fd, &client->seed);
    if (!well)
        add_seq(&client->failed, 1);
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int listen_on(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof(*address)) || listen(fd, CLIENTS) ||
        getsockname(fd, (struct sockaddr *)address, &length))
        cr_skip_test("no loopback here");
    return fd;
}

/* Holds: every client gets every message back in capitals, over a ring smaller than what is under way. */
static void echo(int delivery, bool one_by_one, unsigned flags)
{
    struct rp_pool_options options = {.queue_depth = 64};
    struct server server = {.one_by_one = one_by_one};
    struct client client[CLIENTS];
    struct sockaddr_in address;

    int rc = io_uring_queue_init(4, &server.ring, flags);
    if (rc)
        cr_skip_test("no io_uring of this kind here");
    server.listener = listen_on(&address);
    server.pool = pool_make(2, &options);
    struct rp_cq_options cq_options = {
        .ring = &server.ring, .tag = DOORBELL, .delivery = delivery, .per_completion = one_by_one, .entries = 1};
    rc = rp_cq_create(&server.cq, &cq_options);
    if (rc == -ENOTSUP)
        cr_skip_test("the kernel does not grant this delivery");
    cr_assert_eq(rc, 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        client[i] = (struct client){.address = address, .seed = i + 1};
        cr_assert_eq(pthread_create(&client[i].thread, NULL, client_main, &client[i]), 0);
    }
    serve(&server);
    for (unsigned i = 0; i < CLIENTS; i++) {
        cr_assert_eq(pthread_join(client[i].thread, NULL), 0);
        cr_assert_eq(load_seq(&client[i].failed), 0);
    }
    cr_assert_geq(server.works, CLIENTS * MESSAGES);
    if (!one_by_one)
        cr_assert_leq(server.doorbells, server.works + 1);
    cr_assert_geq(rp_cq_detach(server.cq), 0);
    cr_assert_eq(rp_cq_destroy(server.cq), 0);
    close(server.listener);
    io_uring_queue_exit(&server.ring);
    pool_end(server.pool);
}

Test(echo, sockets_and_tasks_complete_in_one_loop)
{
    echo(RP_CQ_AUTO, false, 0);
}

Test(echo, a_loop_with_deferred_task_run_serves_both)
{
    echo(RP_CQ_AUTO, false, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

Test(echo, the_doorbell_may_come_from_the_reactor)
{
    echo(RP_CQ_REACTOR, false, 0);
}

Test(echo, the_doorbell_may_be_polled)
{
    echo(RP_CQ_POLL, false, 0);
}

Test(echo, completions_may_come_one_by_one)
{
    echo(RP_CQ_AUTO, true, 0);
    echo(RP_CQ_REACTOR, true, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}
