// Boost.Asio: thread_pool and post(). Its queue has no bound. Waiting for one task is a std::future.
#include <cstdio>
#include <new>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/version.hpp>

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
    return it;
}

} // namespace

const executor peer_executor = describe();
