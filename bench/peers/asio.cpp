// Boost.Asio: thread_pool and post(). Its queue has no bound. Waiting for one task is a std::future.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <new>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/version.hpp>

#include "meter.h"
#include "peer.h"

namespace
{

struct pool {
    permits limit{};
    boost::asio::thread_pool threads;

    explicit pool(unsigned workers) : threads(workers)
    {
    }
};

bool about(char *text, unsigned size)
{
    std::snprintf(text, size, "Boost.Asio %s", BOOST_LIB_VERSION);
    return true;
}

int create(void **self, const executor_config *config)
{
    auto made = new (std::nothrow) pool(config->workers);

    if (!made)
        return -ENOMEM;
    permits_init(&made->limit, config);
    *self = made;
    return 0;
}

void destroy(void *self)
{
    auto it = static_cast<pool *>(self);

    it->threads.join();
    delete it;
}

int submit(void *self, executor_fn *fn, void *arg)
{
    auto it = static_cast<pool *>(self);

    permits_take(&it->limit);
    boost::asio::post(it->threads, [=] {
        fn(arg);
        permits_give(&it->limit);
    });
    return 0;
}

int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    while (n--)
        submit(self, fn, arg);
    return 0;
}

int join(void *self, executor_fn *fn, void *arg)
{
    boost::asio::post(static_cast<pool *>(self)->threads, boost::asio::use_future([=] { fn(arg); })).get();
    return 0;
}

// Each wait is a timer of its own chain; the chains share how many waits are left.
struct chain {
    boost::asio::steady_timer timer;
    std::atomic<int64_t> &left;
    std::chrono::nanoseconds length;

    void next()
    {
        if (left.fetch_sub(1, std::memory_order_relaxed) <= 0)
            return;
        timer.expires_after(length);
        timer.async_wait([this](const boost::system::error_code &) {
            task_count(nullptr);
            next();
        });
    }
};

int timers(void *self, uint64_t n, uint64_t outstanding, int64_t ns)
{
    auto &threads = static_cast<pool *>(self)->threads;
    std::atomic<int64_t> left(static_cast<int64_t>(n));
    std::vector<std::unique_ptr<chain>> chains;

    for (uint64_t i = 0; i < outstanding; i++) {
        chains.push_back(std::unique_ptr<chain>(
            new chain{boost::asio::steady_timer(threads), left, std::chrono::nanoseconds(ns)}));
        chains.back()->next();
    }
    threads.join();
    return 0;
}

executor describe()
{
    executor it{};

    it.name = "asio";
    it.about = about;
    it.create = create;
    it.destroy = destroy;
    it.submit = submit;
    it.burst = burst;
    it.join = join;
    it.timers = timers;
    return it;
}

} // namespace

const executor peer_executor = describe();
