//! Rust: threads that receive boxed closures from a crossbeam channel (bounded; strict: of capacity 0), or rayon's
//! `spawn`. The workloads, keys and output are those of the C programs in bench/; see there for what each measures and
//! leaves out. rayon's queue has no bound, and strict has no meaning there.

use crossbeam_channel::{bounded, Sender};
use std::cell::{Cell as Slot, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

type Task = Box<dyn FnOnce() + Send>;

#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

static COUNTERS: Mutex<Vec<Arc<Counter>>> = Mutex::new(Vec::new());
static LATENCIES: Mutex<Vec<Arc<Mutex<Vec<u64>>>>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: Slot<Option<&'static Counter>> = const { Slot::new(None) };
    static SAMPLES: RefCell<Option<Arc<Mutex<Vec<u64>>>>> = const { RefCell::new(None) };
}

#[cold]
fn join_counters() -> &'static Counter {
    let counter: &'static Arc<Counter> = Box::leak(Box::new(Arc::new(Counter::default())));
    COUNTERS.lock().unwrap().push(counter.clone());
    MINE.with(|mine| mine.set(Some(counter)));
    counter
}

fn count() {
    let counter = MINE.with(|mine| mine.get()).unwrap_or_else(join_counters);
    counter.0.store(counter.0.load(Relaxed) + 1, Release);
}

/// The mutex is the worker's own until the end: never contended.
fn sample(ns: u64, most: usize) {
    SAMPLES.with(|samples| {
        let mut samples = samples.borrow_mut();
        let mine = samples.get_or_insert_with(|| {
            let new = Arc::new(Mutex::new(Vec::with_capacity(most)));
            LATENCIES.lock().unwrap().push(new.clone());
            new
        });
        mine.lock().unwrap().push(ns);
    });
    count();
}

fn counted() -> u64 {
    COUNTERS.lock().unwrap().iter().map(|c| c.0.load(Acquire)).sum()
}

fn await_count(n: u64) {
    while counted() < n {
        thread::sleep(Duration::from_micros(50));
    }
}

enum Pool {
    Channel(Option<Sender<Task>>, Vec<JoinHandle<()>>),
    Rayon(rayon::ThreadPool),
}

impl Pool {
    fn new(kind: &str, workers: usize, queue: usize) -> Pool {
        if kind == "rayon" {
            return Pool::Rayon(rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap());
        }
        let (send, receive) = bounded::<Task>(queue);
        let threads = (0..workers)
            .map(|_| {
                let receive = receive.clone();
                let run = move || receive.iter().for_each(|task| task());
                thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap()
            })
            .collect();
        Pool::Channel(Some(send), threads)
    }

    fn submit<F: FnOnce() + Send + 'static>(&self, task: F) {
        match self {
            Pool::Channel(send, _) => send.as_ref().unwrap().send(Box::new(task)).unwrap(),
            Pool::Rayon(pool) => pool.spawn(task),
        }
    }

    fn join<F: FnOnce() + Send + 'static>(&self, task: F) {
        match self {
            Pool::Channel(..) => {
                let (done, wait) = bounded(1);
                self.submit(move || {
                    task();
                    done.send(()).unwrap();
                });
                wait.recv().unwrap();
            }
            Pool::Rayon(pool) => pool.install(task),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Pool::Channel(send, threads) = self {
            drop(send.take());
            threads.drain(..).for_each(|thread| thread.join().unwrap());
        }
    }
}

/// A value that the compiler knows nothing about; it stays in its register.
#[inline(always)]
fn opaque(mut x: u64) -> u64 {
    unsafe { std::arch::asm!("/* {0} */", inout(reg) x, options(nomem, nostack, preserves_flags)) };
    x
}

#[inline(always)]
fn compute(mut x: u64, steps: u64) -> u64 {
    for _ in 0..steps {
        x = opaque(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    }
    x
}

fn steps(ns: f64) -> u64 {
    const N: u64 = 200000;
    let best = (0..50).map(|i| {
        let begun = Instant::now();
        opaque(compute(i, N));
        begun.elapsed()
    });
    (ns * N as f64 / best.min().unwrap().as_nanos() as f64) as u64
}

struct Usage {
    wall: Instant,
    cpu: f64,
    switches: f64,
    max_rss: f64,
}

fn usage() -> Usage {
    let mut r: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut r) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Usage {
        wall: Instant::now(),
        cpu: seconds(r.ru_utime) + seconds(r.ru_stime),
        switches: (r.ru_nvcsw + r.ru_nivcsw) as f64,
        max_rss: r.ru_maxrss as f64,
    }
}

fn rss_kb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4.0
}

fn refuse(what: &str) -> ! {
    eprintln!(
        "rust: makes no sense here: {what}; usage: crossbeam|rayon \
         throughput|work|wake|roundtrip|sleepers|idle|fanout [KEY=VALUE...] [--json]"
    );
    std::process::exit(2)
}

#[derive(Default)]
struct Run {
    kind: String,
    workload: String,
    given: BTreeMap<String, String>,
    params: BTreeMap<String, String>, // as JSON
    figures: BTreeMap<String, f64>,
}

impl Run {
    fn number(&mut self, key: &str, otherwise: u64) -> u64 {
        let value = match self.given.remove(key) {
            Some(text) => text.parse().unwrap_or_else(|_| refuse(&format!("{key}={text}"))),
            None => otherwise,
        };
        if value == 0 && !["gap_us", "queue", "spin"].contains(&key) {
            refuse(&format!("{key}=0"));
        }
        self.params.insert(key.into(), value.to_string());
        value
    }

    fn word(&mut self, key: &str, known: &[&str]) -> String {
        let value = self.given.remove(key).unwrap_or_else(|| known[0].into());
        if !known.contains(&value.as_str()) {
            refuse(&format!("{key}={value}"));
        }
        self.params.insert(key.into(), format!("\"{value}\""));
        value
    }

    fn check(&self) {
        if let Some(key) = self.given.keys().next() {
            refuse(key);
        }
    }

    fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.into(), value);
    }

    fn flood(&mut self) -> bool {
        let (works, sleeps) = (self.workload == "work", self.workload == "sleepers");
        let producers = if sleeps { 1 } else { self.number("producers", 1) };
        let workers = self.number("workers", if sleeps { 1000 } else { 1 });
        let tasks = self.number("tasks", if works || sleeps { 100000 } else { 2000000 });
        let mode = self.word("mode", if sleeps { &["thread"] } else { &["queue", "strict"] });
        let queue = self.number("queue", 1024);
        let (mut spin, mut ms) = (0, 0);
        match self.workload.as_str() {
            "work" => spin = self.number("spin", 5000),
            "sleepers" => ms = self.number("ms", 10),
            _ => drop(self.number("batch", 64)),
        }
        self.check();
        if mode == "strict" && self.kind == "rayon" {
            refuse(&format!("mode={mode}"));
        }
        let n = if works { steps(spin as f64) } else { 0 };
        let pool = Pool::new(&self.kind, workers as usize, if mode == "strict" { 0 } else { queue as usize });
        let (gate, took) = (Barrier::new(producers as usize + 1), AtomicU64::new(0));
        let mut begun = usage();
        thread::scope(|scope| {
            for i in 0..producers {
                let (pool, gate, took) = (&pool, &gate, &took);
                let share = tasks / producers + u64::from(i < tasks % producers);
                let run = move || {
                    gate.wait();
                    let begun = Instant::now();
                    for _ in 0..share {
                        if works {
                            pool.submit(move || {
                                opaque(compute(n, n));
                                count();
                            });
                        } else if sleeps {
                            pool.submit(move || {
                                thread::sleep(Duration::from_millis(ms));
                                count();
                            });
                        } else {
                            pool.submit(count);
                        }
                    }
                    took.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
                };
                thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap();
            }
            begun = usage();
            gate.wait();
        });
        await_count(tasks);
        let end = usage();
        drop(pool);
        let elapsed = (end.wall - begun.wall).as_secs_f64();
        self.figure("elapsed_s", elapsed);
        self.figure("tasks_per_s", tasks as f64 / elapsed);
        self.figure("submit_ns", took.load(Relaxed) as f64 / tasks as f64);
        self.figure("cpu_s", end.cpu - begun.cpu);
        self.figure("cpu_ns_per_task", (end.cpu - begun.cpu) * 1e9 / tasks as f64);
        self.figure("csw", end.switches - begun.switches);
        self.figure("maxrss_kb", end.max_rss);
        if sleeps {
            self.figure("ideal_s", ((tasks + workers - 1) / workers * ms) as f64 / 1e3);
        }
        if works {
            let cpus = workers.min(thread::available_parallelism().unwrap().get() as u64);
            self.figure("efficiency", tasks as f64 * spin as f64 / 1e9 / (cpus as f64 * elapsed));
        }
        counted() == tasks
    }

    fn percentiles(&mut self, prefix: &str, mut ns: Vec<u64>) {
        ns.sort_unstable();
        for (name, at) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)] {
            if prefix.is_empty() || name == "p50_us" || name == "p99_us" {
                let i = ((at * ns.len() as f64).ceil() as usize).max(1) - 1;
                self.figure(&format!("{prefix}{name}"), ns[i] as f64 / 1e3);
            }
        }
    }

    fn latency(&mut self) -> bool {
        let wakes = self.workload == "wake";
        let gap = Duration::from_micros(self.number("gap_us", if wakes { 50 } else { 0 }));
        let how = self.word("gap", &["auto", "sleep", "spin"]);
        let (workers, samples) = (self.number("workers", 1), self.number("samples", 20000));
        self.check();
        let asleep = how == "sleep" || (how == "auto" && gap >= Duration::from_millis(1));
        let pool = Pool::new(&self.kind, workers as usize, 1024);
        let mut calls = Vec::with_capacity(samples as usize);
        let begun = usage();
        for _ in 0..samples {
            let t = Instant::now();
            if wakes {
                pool.submit(move || sample(t.elapsed().as_nanos() as u64, samples as usize));
            } else {
                pool.join(count);
            }
            calls.push(t.elapsed().as_nanos() as u64);
            let next = if wakes { t + gap } else { Instant::now() + gap };
            if asleep {
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            while !gap.is_zero() && Instant::now() < next {}
        }
        await_count(samples);
        let end = usage();
        drop(pool);
        if wakes {
            let all = LATENCIES.lock().unwrap().iter().flat_map(|l| l.lock().unwrap().clone()).collect();
            self.percentiles("", all);
            self.percentiles("submit_", calls);
        } else {
            self.percentiles("", calls);
        }
        self.figure("elapsed_s", (end.wall - begun.wall).as_secs_f64());
        self.figure("cpu_s", end.cpu - begun.cpu);
        self.figure("csw", end.switches - begun.switches);
        counted() == samples
    }

    fn idle(&mut self) -> bool {
        let (workers, seconds) = (self.number("workers", 1000), self.number("seconds", 2));
        self.check();
        let (before, begun) = (rss_kb(), usage());
        let pool = Pool::new(&self.kind, workers as usize, 1024);
        let all = Arc::new(Barrier::new(workers as usize));
        for _ in 0..workers {
            let all = all.clone();
            pool.submit(move || {
                all.wait();
                count();
            });
        }
        await_count(workers);
        let made = usage();
        thread::sleep(Duration::from_millis(300));
        let (after, quiet) = (rss_kb(), usage());
        thread::sleep(Duration::from_secs(seconds));
        let end = usage();
        self.figure("create_us_per_worker", (made.wall - begun.wall).as_secs_f64() * 1e6 / workers as f64);
        self.figure("create_cpu_us_per_worker", (made.cpu - begun.cpu) * 1e6 / workers as f64);
        self.figure("rss_kb_per_worker", (after - before) / workers as f64);
        self.figure("cpu_s", end.cpu - quiet.cpu);
        self.figure("wakeups", (end.switches - quiet.switches - 1.0).max(0.0));
        true
    }

    fn fanout(&mut self) -> bool {
        let (tasks, workers) = (self.number("tasks", 1000000), self.number("workers", 2));
        let (spin, chunks) = (self.number("spin", 50), self.number("chunks", 32));
        self.check();
        let (n, nothing) = (steps(spin as f64), opaque(0u64));
        let body = move |from: u64, to: u64| {
            let (mut sum, mut x) = (0u64, 0u64);
            for i in from..to {
                x = compute(i + (x & nothing), n);
                sum = sum.wrapping_add(x);
            }
            sum
        };
        let pool = Pool::new(&self.kind, workers as usize, 65536);
        let (mut serial, mut parallel, mut exact) = (Duration::MAX, Duration::MAX, true);
        for _ in 0..3 {
            let begun = Instant::now();
            let expected = body(0, tasks);
            let middle = Instant::now();
            let total = match &pool {
                Pool::Rayon(rayon) => rayon.install(|| {
                    use rayon::prelude::*;
                    (0..(tasks + 255) / 256)
                        .into_par_iter()
                        .map(|i| body(i * 256, ((i + 1) * 256).min(tasks)))
                        .reduce(|| 0, u64::wrapping_add)
                }),
                Pool::Channel(..) => {
                    let (send, receive) = bounded(65536);
                    for i in 0..chunks * workers {
                        let (send, pieces) = (send.clone(), chunks * workers);
                        pool.submit(move || send.send(body(tasks * i / pieces, tasks * (i + 1) / pieces)).unwrap());
                    }
                    drop(send);
                    receive.iter().fold(0, u64::wrapping_add)
                }
            };
            parallel = parallel.min(middle.elapsed());
            serial = serial.min(middle - begun);
            exact &= total == expected;
        }
        self.figure("serial_ns_per_element", serial.as_nanos() as f64 / tasks as f64);
        self.figure("parallel_ns_per_element", parallel.as_nanos() as f64 / tasks as f64);
        self.figure("speedup", serial.as_secs_f64() / parallel.as_secs_f64());
        exact
    }
}


fn main() {
    let mut args = std::env::args().skip(1);
    let mut run = Run {
        kind: args.next().filter(|k| k == "crossbeam" || k == "rayon").unwrap_or_else(|| refuse("the pool")),
        workload: args.next().unwrap_or_else(|| refuse("the workload")),
        ..Run::default()
    };
    for arg in args.filter(|arg| arg != "--json") {
        let (key, value) = arg.split_once('=').unwrap_or_else(|| refuse(&arg));
        run.given.insert(key.into(), value.into());
    }
    let exact = match run.workload.as_str() {
        "throughput" | "work" | "sleepers" => run.flood(),
        "wake" | "roundtrip" => run.latency(),
        "idle" => run.idle(),
        "fanout" => run.fanout(),
        other => refuse(other),
    };
    let params: Vec<_> = run.params.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    let figures: Vec<_> = run.figures.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    println!(
        "{{\"program\":\"{}\",\"about\":\"{}, {}\",\"workload\":\"{}\",\"params\":{{{}}},\"figures\":{{{}}},\"exact\":{exact}}}",
        run.kind, option_env!("PEER_RUSTC").unwrap_or("rustc"), run.kind, run.workload, params.join(","), figures.join(",")
    );
    if !exact {
        eprintln!("rust: WRONG: not exactly the tasks ran that were submitted");
        std::process::exit(1);
    }
}
