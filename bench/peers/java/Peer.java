// Java: a ForkJoinPool in its asynchronous (first in, first out) mode, or a ThreadPoolExecutor of fixed size. The
// workloads, keys and output are those of the C programs in bench/; see there for what each measures and leaves out.
// Each flood runs for 0.7 s before, so that the compiler is through. CPU time and context switches are
// left to the caller, who sees the whole process; the CPU time here is that of the measured part.

import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.concurrent.locks.LockSupport;

public class Peer {
    /** Counters of a worker; a long every 16, so that no two share a line. */
    static final int APART = 16;
    static final int CELLS = 1 << 15;
    static final AtomicLongArray counts = new AtomicLongArray(CELLS * APART);
    static final AtomicInteger nextCell = new AtomicInteger();
    static final ThreadLocal<Cell> cells = ThreadLocal.withInitial(Cell::new);
    static final Queue<Cell> all = new ConcurrentLinkedQueue<>();

    static final class Cell {
        final int at = nextCell.getAndIncrement() % CELLS * APART;
        long[] latency;
        int samples;

        Cell() {
            if (perCell > 0)
                latency = new long[perCell];
            all.add(this);
        }
    }

    static volatile int perCell;

    static void count(Cell cell) {
        counts.setRelease(cell.at, counts.getPlain(cell.at) + 1);
    }

    static long counted() {
        long sum = 0;
        for (int i = 0; i < Math.min(nextCell.get(), CELLS); i++)
            sum += counts.getAcquire(i * APART);
        return sum;
    }

    static void awaitCount(long n) {
        while (counted() < n)
            LockSupport.parkNanos(50_000);
    }

    static final Map<String, String> given = new HashMap<>();
    static final Map<String, Object> params = new LinkedHashMap<>();
    static final Map<String, Double> figures = new LinkedHashMap<>();
    static String kind, workload;

    static int number(String key, int otherwise) {
        String text = given.remove(key);
        int value = text == null ? otherwise : text.matches("[0-9]{1,9}") ? Integer.parseInt(text) : -1;
        if (value < 0 || value == 0 && !List.of("gap_us", "queue", "spin").contains(key))
            usage(key + "=" + text);
        params.put(key, value);
        return value;
    }

    static String word(String key, String otherwise, String... others) {
        String value = given.containsKey(key) ? given.remove(key) : otherwise;
        if (!value.equals(otherwise) && !List.of(others).contains(value))
            usage(key + "=" + value);
        params.put(key, value);
        return value;
    }

    static void usage(String what) {
        System.err.println("java: makes no sense here: " + what
            + "; usage: forkjoin|fixed throughput|work|wake|roundtrip|sleepers|idle|fanout [KEY=VALUE...] [--json]");
        System.exit(2);
    }

    static ExecutorService make(int workers) {
        if (kind.equals("forkjoin"))
            return new ForkJoinPool(workers, ForkJoinPool.defaultForkJoinWorkerThreadFactory, null, true);
        ThreadPoolExecutor pool =
            new ThreadPoolExecutor(workers, workers, 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>());
        pool.prestartAllCoreThreads();
        return pool;
    }

    static long compute(long x, long steps) {
        for (long i = 0; i < steps; i++)
            x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static volatile long sink;

    static long steps(double ns) {
        final int n = 200000;
        long best = Long.MAX_VALUE;
        for (int i = 0; i < 50; i++) {
            long begun = System.nanoTime();
            sink = compute(i, n);
            best = Math.min(best, System.nanoTime() - begun);
        }
        return (long) (ns * n / best);
    }

    static double cpu() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                   .getProcessCpuTime() / 1e9;
    }

    static double status(String field, Path file) throws Exception {
        for (String line : Files.readAllLines(file))
            if (line.startsWith(field + ":"))
                return Double.parseDouble(line.replaceAll("[^0-9]", ""));
        return 0;
    }

    static double switches() {
        double sum = 0;
        for (java.io.File task : new java.io.File("/proc/self/task").listFiles())
            try {
                Path file = task.toPath().resolve("status");
                sum += status("voluntary_ctxt_switches", file) + status("nonvoluntary_ctxt_switches", file);
            } catch (Exception gone) {
                continue;
            }
        return sum;
    }

    static long submitAll(ExecutorService pool, Runnable fn, int producers, long tasks, Semaphore permits)
        throws Exception {
        CountDownLatch ready = new CountDownLatch(producers), go = new CountDownLatch(1);
        AtomicLong took = new AtomicLong();
        Thread[] threads = new Thread[producers];
        for (int i = 0; i < producers; i++) {
            long n = tasks / producers + (i < tasks % producers ? 1 : 0);
            threads[i] = new Thread(null, () -> {
                ready.countDown();
                try {
                    go.await();
                    long begun = System.nanoTime();
                    for (long k = 0; k < n; k++) {
                        if (permits != null)
                            permits.acquire();
                        pool.execute(fn);
                    }
                    took.addAndGet(System.nanoTime() - begun);
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
            }, "producer", 1 << 18);
            threads[i].start();
        }
        ready.await();
        started = System.nanoTime();
        startedCpu = cpu();
        go.countDown();
        for (Thread thread : threads)
            thread.join();
        return took.get();
    }

    static long started;
    static double startedCpu;

    static boolean flood() throws Exception {
        boolean work = workload.equals("work"), sleep = workload.equals("sleepers");
        int producers = sleep ? 1 : number("producers", 1), workers = number("workers", sleep ? 1000 : 1);
        long tasks = number("tasks", work || sleep ? 100000 : 2000000);
        String mode = sleep ? word("mode", "thread") : word("mode", "queue", "strict");
        int spin = work ? number("spin", 5000) : 0, ms = sleep ? number("ms", 10) : 0;
        number("queue", 1024); // has no bound here
        if (!work && !sleep)
            number("batch", 64);
        checkKeys();
        Semaphore permits = mode.equals("strict") ? new Semaphore(workers) : null;
        long n = work ? steps(spin) : 0;
        Runnable fn = work ? () -> {
            Cell cell = cells.get();
            if (compute(n, n) == 0)
                sink = 1;
            count(cell);
        } : sleep ? () -> {
            try {
                Thread.sleep(ms);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            count(cells.get());
        } : () -> count(cells.get());
        Runnable limited = permits == null ? fn : () -> {
            fn.run();
            permits.release();
        };
        ExecutorService pool = make(workers);
        long before = 0, warmed = System.nanoTime() + 700_000_000L;
        do {
            long piece = sleep ? workers : Math.max(tasks / 10, 1);
            submitAll(pool, limited, producers, piece, permits);
            awaitCount(before += piece);
        } while (!sleep && System.nanoTime() < warmed);
        System.gc();
        double switched = switches();
        long took = submitAll(pool, limited, producers, tasks, permits);
        awaitCount(before + tasks);
        double elapsed = (System.nanoTime() - started) / 1e9, used = cpu() - startedCpu;
        figures.put("csw", switches() - switched);
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.MINUTES);
        figures.put("elapsed_s", elapsed);
        figures.put("tasks_per_s", tasks / elapsed);
        figures.put("submit_ns", (double) took / tasks);
        figures.put("cpu_s", used);
        figures.put("cpu_ns_per_task", used * 1e9 / tasks);
        figures.put("maxrss_kb", status("VmHWM", Path.of("/proc/self/status")));
        if (sleep)
            figures.put("ideal_s", (tasks + workers - 1) / workers * ms / 1e3);
        if (work)
            figures.put("efficiency",
                tasks * (double) spin / 1e9 / (Math.min(workers, Runtime.getRuntime().availableProcessors()) * elapsed));
        return counted() == before + tasks;
    }

    static void percentiles(String prefix, long[] ns) {
        Arrays.sort(ns);
        String[] names = {"p50_us", "p90_us", "p99_us", "p999_us", "max_us"};
        double[] at = {0.5, 0.9, 0.99, 0.999, 1};
        for (int i = 0; i < at.length; i++)
            if (prefix.isEmpty() || i == 0 || i == 2)
                figures.put(prefix + names[i], ns[Math.max(0, (int) Math.ceil(at[i] * ns.length) - 1)] / 1e3);
    }

    static void pass(long until, boolean asleep) {
        long left;
        while ((left = until - System.nanoTime()) > 0)
            if (asleep)
                LockSupport.parkNanos(left);
    }

    static boolean latency() throws Exception {
        boolean wake = workload.equals("wake");
        long gap = number("gap_us", wake ? 50 : 0) * 1000L;
        String how = word("gap", "auto", "sleep", "spin");
        int workers = number("workers", 1), samples = number("samples", 20000), warm = 20000;
        checkKeys();
        boolean asleep = how.equals("sleep") || how.equals("auto") && gap >= 1_000_000;
        perCell = samples + warm;
        ExecutorService pool = make(workers);
        long[] calls = new long[samples];
        double used = 0;
        long begun = 0;
        for (int i = -warm; i < samples; i++) {
            if (i == 0) { // what came before has warmed the compiler up
                awaitCount(warm);
                for (Cell cell : all)
                    cell.samples = 0;
                used = cpu();
                begun = System.nanoTime();
            }
            long t = System.nanoTime();
            if (wake)
                pool.execute(() -> {
                    long took = System.nanoTime() - t;
                    Cell cell = cells.get();
                    cell.latency[cell.samples++] = took;
                    count(cell);
                });
            else
                pool.submit(() -> count(cells.get())).get();
            long took = System.nanoTime() - t;
            if (i >= 0)
                calls[i] = took;
            if (gap > 0)
                pass((wake ? t : System.nanoTime()) + (i < 0 ? Math.min(gap, 20000) : gap), asleep && i >= 0);
        }
        awaitCount(warm + samples);
        figures.put("elapsed_s", (System.nanoTime() - begun) / 1e9);
        figures.put("cpu_s", cpu() - used);
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.MINUTES);
        if (wake) {
            long[] sum = new long[samples];
            int n = 0;
            for (Cell cell : all)
                for (int i = 0; i < cell.samples; i++)
                    sum[n++] = cell.latency[i];
            percentiles("", sum);
            percentiles("submit_", calls);
        } else {
            percentiles("", calls);
        }
        return counted() == warm + samples;
    }

    static double rss() throws Exception {
        return status("VmRSS", Path.of("/proc/self/status"));
    }

    static boolean idle() throws Exception {
        int workers = number("workers", 1000), seconds = number("seconds", 2);
        checkKeys();
        double before = rss();
        long begun = System.nanoTime();
        double used = cpu();
        ExecutorService pool = make(workers);
        CountDownLatch there = new CountDownLatch(workers);
        for (int i = 0; i < workers; i++)
            pool.execute(() -> {
                there.countDown();
                try {
                    there.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
            });
        there.await();
        figures.put("create_us_per_worker", (System.nanoTime() - begun) / 1e3 / workers);
        figures.put("create_cpu_us_per_worker", (cpu() - used) * 1e6 / workers);
        Thread.sleep(300);
        figures.put("rss_kb_per_worker", (rss() - before) / workers);
        double quiet = cpu(), switched = switches();
        Thread.sleep(seconds * 1000L);
        figures.put("cpu_s", cpu() - quiet);
        figures.put("wakeups", switches() - switched);
        pool.shutdownNow();
        return true;
    }

    static long body(long from, long to, long steps, long nothing) {
        long sum = 0, x = 0;
        for (long i = from; i < to; i++) {
            x = compute(i + (x & nothing), steps);
            sum += x;
        }
        return sum;
    }

    static volatile long zero;

    static boolean fanout() throws Exception {
        int tasks = number("tasks", 1000000), workers = number("workers", 2), spin = number("spin", 50);
        int chunks = number("chunks", 32);
        checkKeys();
        long n = steps(spin), serial = Long.MAX_VALUE, parallel = Long.MAX_VALUE;
        boolean exact = true;
        ExecutorService pool = make(workers);
        for (int r = 0; r < 6; r++) {
            long begun = System.nanoTime();
            long expected = body(0, tasks, n, zero);
            long middle = System.nanoTime();
            List<Callable<Long>> pieces = new ArrayList<>();
            for (int i = 0; i < chunks * workers; i++) {
                long from = (long) tasks * i / (chunks * workers), to = (long) tasks * (i + 1) / (chunks * workers);
                pieces.add(() -> body(from, to, n, zero));
            }
            long total = 0;
            for (Future<Long> piece : pool.invokeAll(pieces))
                total += piece.get();
            parallel = Math.min(parallel, System.nanoTime() - middle);
            serial = Math.min(serial, middle - begun);
            exact &= total == expected;
        }
        pool.shutdown();
        figures.put("serial_ns_per_element", (double) serial / tasks);
        figures.put("parallel_ns_per_element", (double) parallel / tasks);
        figures.put("speedup", (double) serial / parallel);
        return exact;
    }

    static void checkKeys() {
        if (!given.isEmpty())
            usage(given.keySet().toString());
    }

    static String json(Map<String, ?> map) {
        StringJoiner out = new StringJoiner(",", "{", "}");
        map.forEach((k, v) -> out.add("\"" + k + "\":" + (v instanceof String ? "\"" + v + "\"" : v)));
        return out.toString();
    }

    public static void main(String[] args) throws Exception {
        if (args.length < 2 || !args[0].equals("forkjoin") && !args[0].equals("fixed"))
            usage("the pool or the workload");
        kind = args[0];
        workload = args[1];
        for (int i = 2; i < args.length; i++) {
            String[] pair = args[i].split("=", 2);
            if (args[i].equals("--json"))
                continue;
            if (pair.length != 2)
                usage(args[i]);
            given.put(pair[0], pair[1]);
        }
        boolean exact = false;
        switch (workload) {
        case "throughput":
        case "work":
        case "sleepers":
            exact = flood();
            break;
        case "wake":
        case "roundtrip":
            exact = latency();
            break;
        case "idle":
            exact = idle();
            break;
        case "fanout":
            exact = fanout();
            break;
        default:
            usage(workload);
        }
        System.out.println("{\"program\":\"java-" + kind + "\",\"about\":\"Java " + System.getProperty("java.version")
            + "\",\"workload\":\"" + workload + "\",\"params\":" + json(params) + ",\"figures\":" + json(figures)
            + ",\"exact\":" + exact + "}");
        if (!exact)
            System.err.println("java: WRONG: not exactly the tasks ran that were submitted");
        System.exit(exact ? 0 : 1);
    }
}
