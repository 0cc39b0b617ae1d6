package machine

import (
	"context"
	"sync"

	"tomada/machine/internal/pipe"
	"tomada/machine/internal/protocol"
)

// gate holds whoever delivers an event until the host has acknowledged its number. Numbers are single: an instance
// whose commit takes long holds up no other.
type gate struct {
	out *pipe.Writer

	mu      sync.Mutex
	last    int64
	waiting map[int64]chan struct{}
}

func newGate(out *pipe.Writer) *gate { return &gate{out: out, waiting: map[int64]chan struct{}{}} }

// deliver returns nil when the event is committed. Any error: it may or may not be, so it has to come again.
func (g *gate) deliver(ctx context.Context, instanceID string, event any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // of a session that is gone: nobody wants to hear it now
	}
	number, committed := g.register()
	defer g.forget(number)
	happened := protocol.Happened{Type: "happened", InstanceID: instanceID, Number: number, Event: event}
	if err := g.out.Write(happened); err != nil {
		return err
	}
	select {
	case <-committed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gate) acknowledge(numbers []int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, number := range numbers {
		if committed := g.waiting[number]; committed != nil {
			close(committed)
			delete(g.waiting, number)
		}
	}
}

func (g *gate) register() (int64, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	committed := make(chan struct{})
	g.waiting[g.last] = committed
	return g.last, committed
}

func (g *gate) forget(number int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, number)
}
