// The three pools that Go programs use: goroutines that receive from a channel, a goroutine for each task, and a stack
// of idle goroutines.
package main

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A cell counts the tasks of one goroutine at a time; it has cache lines of its own and outlives whoever used it.
type cell struct {
	tasks   uint64
	latency []int64
	_       [96]byte
}

// The owner alone writes; the atomic store is what makes the reader's load well defined.
func (c *cell) add() { atomic.StoreUint64(&c.tasks, c.tasks+1) }

var cells struct {
	sync.Mutex
	all     []*cell
	samples int // room for latencies in each
}

func newCell() *cell {
	c := &cell{latency: make([]int64, 0, cells.samples)}
	cells.Lock()
	cells.all = append(cells.all, c)
	cells.Unlock()
	return c
}

func count() (n uint64) {
	cells.Lock()
	defer cells.Unlock()
	for _, c := range cells.all {
		n += atomic.LoadUint64(&c.tasks)
	}
	return
}

type task func(*cell)

type pool interface {
	submit(t task)
	burst(t task, n int) // n times submit, without a call through an interface for each
	close()              // what was accepted runs
}

// --- goroutines on a buffered channel; strict: an unbuffered one ---

type channelPool struct {
	tasks chan task
	done  sync.WaitGroup
}

func newChannelPool(workers, queue int) pool {
	p := &channelPool{tasks: make(chan task, queue)}
	p.done.Add(workers)
	for i := 0; i < workers; i++ {
		go func(c *cell) {
			defer p.done.Done()
			for t := range p.tasks {
				t(c)
			}
		}(newCell())
	}
	return p
}

func (p *channelPool) submit(t task) { p.tasks <- t }

func (p *channelPool) burst(t task, n int) {
	for i := 0; i < n; i++ {
		p.tasks <- t
	}
}

func (p *channelPool) close() { close(p.tasks); p.done.Wait() }

// --- a goroutine for each task, as many at once as the pools have workers and places in their queue ---

type spawnPool struct {
	permits chan struct{}
	cells   sync.Pool
	done    sync.WaitGroup
}

func newSpawnPool(workers, queue int) pool {
	p := &spawnPool{permits: make(chan struct{}, workers+queue)}
	p.cells.New = func() interface{} { return newCell() }
	return p
}

func (p *spawnPool) submit(t task) {
	p.permits <- struct{}{}
	go func() {
		c := p.cells.Get().(*cell)
		t(c)
		p.cells.Put(c)
		<-p.permits
	}()
}

func (p *spawnPool) burst(t task, n int) {
	for i := 0; i < n; i++ {
		p.submit(t)
	}
}

func (p *spawnPool) close() {
	for i := 0; i < cap(p.permits); i++ { // all given back
		p.permits <- struct{}{}
	}
}

// --- a stack of idle goroutines, each with a channel of its own ---
//
// The design of ants v2 (github.com/panjf2000/ants), which is not fetched: a spinlock that gives up the processor with
// exponential backoff, a stack of idle workers, a condition for submitters. There is no queue: who finds neither an idle
// worker nor room for one more waits.

type spinLock struct{ held uint32 }

func (l *spinLock) Lock() {
	for backoff := 1; !atomic.CompareAndSwapUint32(&l.held, 0, 1); {
		for i := 0; i < backoff; i++ {
			runtime.Gosched()
		}
		if backoff < 16 {
			backoff <<= 1
		}
	}
}

func (l *spinLock) Unlock() { atomic.StoreUint32(&l.held, 0) }

type lifoPool struct {
	lock              sync.Locker
	freed             *sync.Cond
	idle              []chan task
	running, capacity int
	waiting           int
}

func newLifoPool(workers, _ int) pool {
	p := &lifoPool{lock: &spinLock{}, capacity: workers}
	p.freed = sync.NewCond(p.lock)
	return p
}

func (p *lifoPool) work(tasks chan task) {
	c := newCell()
	for t := range tasks {
		t(c)
		p.lock.Lock()
		p.idle = append(p.idle, tasks)
		if p.waiting > 0 {
			p.freed.Signal()
		}
		p.lock.Unlock()
	}
}

func (p *lifoPool) take() chan task {
	p.lock.Lock()
	for {
		if n := len(p.idle); n > 0 {
			tasks := p.idle[n-1]
			p.idle = p.idle[:n-1]
			p.lock.Unlock()
			return tasks
		}
		if p.running < p.capacity {
			p.running++
			p.lock.Unlock()
			tasks := make(chan task, 1) // the submitter does not wait for the worker to be there
			go p.work(tasks)
			return tasks
		}
		p.waiting++
		p.freed.Wait()
		p.waiting--
	}
}

func (p *lifoPool) submit(t task) { p.take() <- t }

func (p *lifoPool) burst(t task, n int) {
	for i := 0; i < n; i++ {
		p.take() <- t
	}
}

func (p *lifoPool) close() {
	for n := 0; n < p.running; n++ {
		p.lock.Lock()
		for len(p.idle) == 0 {
			p.waiting++
			p.freed.Wait()
			p.waiting--
		}
		close(p.idle[len(p.idle)-1])
		p.idle = p.idle[:len(p.idle)-1]
		p.lock.Unlock()
	}
}
