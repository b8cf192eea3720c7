// oneTBB: an arena with a slot for each producer and each worker, and one task_group. Its waiter may run the task.
#include <cstdio>
#include <memory>
#include <new>

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>
#include <tbb/version.h>

#include "peer.h"

namespace
{

struct pool {
    permits limit{};
    tbb::global_control threads;
    tbb::task_arena arena;
    tbb::task_group group;
    tbb::task_arena loop;

    pool(unsigned workers, unsigned producers)
        : threads(tbb::global_control::max_allowed_parallelism, workers + producers),
          arena(static_cast<int>(workers + producers), producers), loop(static_cast<int>(workers))
    {
    }
};

bool about(char *text, unsigned size)
{
    std::snprintf(text, size, "oneTBB %s", TBB_runtime_version());
    return true;
}

int create(void **self, const executor_config *config)
{
    auto made = new (std::nothrow) pool(config->workers, config->producers);

    if (!made)
        return -ENOMEM;
    permits_init(&made->limit, config);
    *self = made;
    return 0;
}

void destroy(void *self)
{
    auto it = static_cast<pool *>(self);

    it->arena.execute([it] { it->group.wait(); });
    delete it;
}

void inside(void *self, executor_fn *produce, void *arg)
{
    static_cast<pool *>(self)->arena.execute([=] { produce(arg); });
}

int submit(void *self, executor_fn *fn, void *arg)
{
    auto it = static_cast<pool *>(self);

    permits_take(&it->limit);
    it->group.run([=] {
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
    submit(self, fn, arg);
    static_cast<pool *>(self)->group.wait();
    return 0;
}

int parallel(void *self, void (*body)(uint64_t from, uint64_t to), uint64_t n)
{
    static_cast<pool *>(self)->loop.execute([=] {
        tbb::parallel_for(tbb::blocked_range<uint64_t>(0, n, 256),
                          [=](const tbb::blocked_range<uint64_t> &range) { body(range.begin(), range.end()); });
    });
    return 0;
}

executor describe()
{
    executor it{};

    it.name = "tbb";
    it.about = about;
    it.is_lazy = true;
    it.create = create;
    it.destroy = destroy;
    it.submit = submit;
    it.burst = burst;
    it.join = join;
    it.parallel = parallel;
    it.inside = inside;
    return it;
}

} // namespace

const executor peer_executor = describe();
