// Go: the pools of pool.go under the workloads of the C programs in bench/, with their keys and output; see there for what
// each measures and leaves out.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var kinds = map[string]struct {
	make  func(workers, queue int) pool
	about string
}{
	"channel": {newChannelPool, "goroutines on a channel"},
	"spawn":   {newSpawnPool, "a goroutine for each task"},
	"lifo":    {newLifoPool, "a stack of idle goroutines, as in ants"},
}

var kind, newPool = "", newChannelPool

func wait(n uint64) {
	for count() < n {
		time.Sleep(50 * time.Microsecond)
	}
}

//go:noinline
func compute(x, steps uint64) uint64 {
	for i := uint64(0); i < steps; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

var sink, nothing uint64

func steps(ns float64) uint64 {
	const n = 200000
	best := time.Hour
	for i := 0; i < 50; i++ {
		begun := time.Now()
		atomic.StoreUint64(&sink, compute(uint64(i), n))
		if took := time.Since(begun); took < best {
			best = took
		}
	}
	return uint64(ns * n / float64(best))
}

type usage struct {
	wall          time.Time
	cpu, switches float64
}

func now() usage {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return usage{time.Now(), float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9, float64(r.Nvcsw + r.Nivcsw)}
}

func rss(max bool) float64 {
	if max {
		var r syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return float64(r.Maxrss)
	}
	text, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize()) / 1024
}

var params = map[string]interface{}{}
var figures = map[string]float64{}

const mayBeZero = " gap_us queue spin "

func number(name string, otherwise int) int {
	if v, ok := params[name]; ok {
		n, err := strconv.Atoi(fmt.Sprint(v))
		if err != nil || n < 0 || n == 0 && !strings.Contains(mayBeZero, " "+name+" ") {
			usageError(name + "=" + fmt.Sprint(v))
		}
		otherwise = n
	}
	params[name] = otherwise
	return otherwise
}

func word(name, otherwise string, others ...string) string {
	if v, ok := params[name]; ok && v != otherwise {
		otherwise = fmt.Sprint(v)
		known := false
		for _, other := range others {
			known = known || otherwise == other
		}
		if !known {
			usageError(name + "=" + otherwise)
		}
	}
	params[name] = otherwise
	return otherwise
}

func usageError(what string) {
	fmt.Fprintf(os.Stderr, "go: makes no sense here: %s; usage: channel|spawn|lifo throughput|work|wake|roundtrip|sleepers|idle|fanout [KEY=VALUE...] [--json]\n", what)
	os.Exit(2)
}

func flood(workload string) bool {
	ownDefault := map[string]int{"throughput": 1, "work": 1, "sleepers": 1000}
	producers, workers := number("producers", 1), number("workers", ownDefault[workload])
	tasks, mode, queue, ideal := 2000000, "queue", number("queue", 1024), 0.0
	fn := task(func(c *cell) { c.add() })
	spin := 0
	switch workload {
	case "work":
		spin = number("spin", 5000)
		n := steps(float64(spin))
		tasks = 100000
		fn = func(c *cell) { compute(n, n); c.add() }
	case "sleepers":
		ms := number("ms", 10)
		tasks = 100000
		fn = func(c *cell) { time.Sleep(time.Duration(ms) * time.Millisecond); c.add() }
		ideal = float64(ms) / 1e3
		if word("mode", "thread", "timer") == "timer" {
			return waits(number("tasks", 1000000), number("outstanding", 50000), time.Duration(ms)*time.Millisecond)
		}
	default:
		number("batch", 64)
	}
	tasks = number("tasks", tasks)
	if workload != "sleepers" {
		mode = word("mode", "queue", "strict")
	}
	if mode == "strict" {
		queue = 0
	}
	p := newPool(workers, queue)
	start := make(chan bool)
	var through sync.WaitGroup
	var took int64
	through.Add(producers)
	for i := 0; i < producers; i++ {
		n := tasks / producers
		if i < tasks%producers {
			n++
		}
		go func() {
			<-start
			begun := time.Now()
			p.burst(fn, n)
			atomic.AddInt64(&took, int64(time.Since(begun)))
			through.Done()
		}()
	}
	runtime.GC()
	begun := now()
	close(start)
	through.Wait()
	wait(uint64(tasks))
	end := now()
	p.close()
	elapsed := end.wall.Sub(begun.wall).Seconds()
	figures["elapsed_s"] = elapsed
	figures["tasks_per_s"] = float64(tasks) / elapsed
	figures["submit_ns"] = float64(took) / float64(tasks)
	figures["cpu_s"] = end.cpu - begun.cpu
	figures["cpu_ns_per_task"] = (end.cpu - begun.cpu) * 1e9 / float64(tasks)
	figures["csw"] = end.switches - begun.switches
	figures["maxrss_kb"] = rss(true)
	if ideal > 0 {
		figures["ideal_s"] = float64((tasks+workers-1)/workers) * ideal
	}
	if workload == "work" {
		cpus := workers
		if cpus > runtime.NumCPU() {
			cpus = runtime.NumCPU()
		}
		figures["efficiency"] = float64(tasks) * float64(spin) / 1e9 / (float64(cpus) * elapsed)
	}
	return count() == uint64(tasks)
}

// A goroutine for each wait that is outstanding: what sleeps for them is the runtime's timers.
func waits(tasks, outstanding int, length time.Duration) bool {
	var through sync.WaitGroup
	begun := now()
	through.Add(outstanding)
	for i := 0; i < outstanding; i++ {
		n := tasks*(i+1)/outstanding - tasks*i/outstanding
		go func() {
			c := newCell()
			for k := 0; k < n; k++ {
				time.Sleep(length)
				c.add()
			}
			through.Done()
		}()
	}
	through.Wait()
	end := now()
	figures["elapsed_s"] = end.wall.Sub(begun.wall).Seconds()
	figures["tasks_per_s"] = float64(tasks) / figures["elapsed_s"]
	figures["cpu_s"] = end.cpu - begun.cpu
	figures["cpu_ns_per_task"] = (end.cpu - begun.cpu) * 1e9 / float64(tasks)
	figures["csw"] = end.switches - begun.switches
	figures["maxrss_kb"] = rss(true)
	figures["ideal_s"] = float64((tasks+outstanding-1)/outstanding) * length.Seconds()
	return count() == uint64(tasks)
}

func percentiles(ns []int64, prefix string) {
	sort.Slice(ns, func(i, k int) bool { return ns[i] < ns[k] })
	at := func(f float64) float64 {
		i := int(f*float64(len(ns))+0.999999) - 1
		if i < 0 {
			i = 0
		}
		return float64(ns[i]) / 1e3
	}
	figures[prefix+"p50_us"], figures[prefix+"p99_us"] = at(0.5), at(0.99)
	if prefix == "" {
		figures["p90_us"], figures["p999_us"], figures["max_us"] = at(0.9), at(0.999), at(1)
	}
}

func latency(workload string) bool {
	otherwise := 50
	if workload == "roundtrip" {
		otherwise = 0
	}
	gap := time.Duration(number("gap_us", otherwise)) * time.Microsecond
	how, workers, samples := word("gap", "auto", "sleep", "spin"), number("workers", 1), number("samples", 20000)
	asleep := how == "sleep" || how == "auto" && gap >= time.Millisecond
	cells.samples = samples
	p := newPool(workers, 1024)
	calls := make([]int64, 0, samples)
	back := make(chan bool, 1)
	runtime.GC()
	begun := now()
	for i := 0; i < samples; i++ {
		t := time.Now()
		if workload == "wake" {
			p.submit(func(c *cell) { c.latency = append(c.latency, int64(time.Since(t))); c.add() })
		} else {
			p.submit(func(c *cell) { c.add(); back <- true })
			<-back
		}
		calls = append(calls, int64(time.Since(t)))
		next := t.Add(gap)
		if workload == "roundtrip" {
			next = time.Now().Add(gap)
		}
		if gap > 0 {
			if asleep {
				time.Sleep(time.Until(next))
			}
			for time.Now().Before(next) {
			}
		}
	}
	wait(uint64(samples))
	end := now()
	p.close()
	all := calls
	if workload == "wake" {
		all = nil
		for _, c := range cells.all {
			all = append(all, c.latency...)
		}
		percentiles(calls, "submit_")
	}
	percentiles(all, "")
	figures["elapsed_s"] = end.wall.Sub(begun.wall).Seconds()
	figures["cpu_s"] = end.cpu - begun.cpu
	figures["csw"] = end.switches - begun.switches
	return count() == uint64(samples)
}

func idle() bool {
	if kind == "spawn" {
		usageError("idle: there are no idle workers")
	}
	workers, seconds := number("workers", 1000), number("seconds", 2)
	before, begun := rss(false), now()
	p := newPool(workers, 1024)
	var there sync.WaitGroup
	there.Add(workers)
	for i := 0; i < workers; i++ { // each goroutine runs once
		p.submit(func(c *cell) { there.Done(); there.Wait(); c.add() })
	}
	wait(uint64(workers))
	made := now()
	time.Sleep(300 * time.Millisecond)
	after, quiet := rss(false), now()
	time.Sleep(time.Duration(seconds) * time.Second)
	end := now()
	figures["create_us_per_worker"] = made.wall.Sub(begun.wall).Seconds() * 1e6 / float64(workers)
	figures["create_cpu_us_per_worker"] = (made.cpu - begun.cpu) * 1e6 / float64(workers)
	figures["rss_kb_per_worker"] = (after - before) / float64(workers)
	figures["cpu_s"] = end.cpu - quiet.cpu
	figures["wakeups"] = end.switches - quiet.switches
	p.close()
	return true
}

func fanout() bool {
	tasks, workers, spin, chunks := number("tasks", 1000000), number("workers", 2), number("spin", 50), number("chunks", 32)
	n, exact := steps(float64(spin)), true
	body := func(from, to int) (sum uint64) {
		var x uint64
		zero := atomic.LoadUint64(&nothing) // as the compiler does not know
		for i := from; i < to; i++ {
			x = compute(uint64(i)+x&zero, n)
			sum += x
		}
		return
	}
	p := newPool(workers, 65536)
	serial, parallel := time.Hour, time.Hour
	for r := 0; r < 3; r++ {
		begun := time.Now()
		expected := body(0, tasks)
		middle := time.Now()
		var total uint64
		var left sync.WaitGroup
		pieces := chunks * workers
		left.Add(pieces)
		for i := 0; i < pieces; i++ {
			from, to := tasks*i/pieces, tasks*(i+1)/pieces
			p.submit(func(*cell) { atomic.AddUint64(&total, body(from, to)); left.Done() })
		}
		left.Wait()
		if took := time.Since(middle); took < parallel {
			parallel = took
		}
		if took := middle.Sub(begun); took < serial {
			serial = took
		}
		exact = exact && total == expected
	}
	p.close()
	figures["serial_ns_per_element"] = float64(serial) / float64(tasks)
	figures["parallel_ns_per_element"] = float64(parallel) / float64(tasks)
	figures["speedup"] = float64(serial) / float64(parallel)
	return exact
}

var known = map[string]string{
	"throughput": "producers workers tasks mode queue batch",
	"work":       "producers workers tasks mode queue spin",
	"sleepers":   "workers tasks mode queue ms outstanding",
	"wake":       "gap_us gap workers samples",
	"roundtrip":  "gap_us gap workers samples",
	"idle":       "workers seconds",
	"fanout":     "tasks workers spin chunks",
}

func main() {
	if len(os.Args) < 3 || kinds[os.Args[1]].make == nil || known[os.Args[2]] == "" {
		usageError("the pool or the workload")
	}
	kind, newPool = os.Args[1], kinds[os.Args[1]].make
	workload := os.Args[2]
	for _, arg := range os.Args[3:] {
		pair := strings.SplitN(arg, "=", 2)
		if arg == "--json" {
			continue
		}
		if len(pair) != 2 || !strings.Contains(" "+known[workload]+" ", " "+pair[0]+" ") {
			usageError(arg)
		}
		params[pair[0]] = pair[1]
	}
	var exact bool
	switch workload {
	case "wake", "roundtrip":
		exact = latency(workload)
	case "idle":
		exact = idle()
	case "fanout":
		exact = fanout()
	default:
		exact = flood(workload)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"program": "go-" + kind, "about": runtime.Version() + ", " + kinds[kind].about, "workload": workload,
		"params": params, "figures": figures, "exact": exact,
	})
	if !exact {
		fmt.Fprintln(os.Stderr, "go: WRONG: not exactly the tasks ran that were submitted")
		os.Exit(1)
	}
}
