package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	"tomada/machine/internal/pipe"
	"tomada/machine/internal/protocol"
)

// delivering starts deliveries and says which of them have returned, and how.
func delivering(ctx context.Context, g *gate, count int) []chan error {
	done := make([]chan error, count)
	for i := range done {
		done[i] = make(chan error, 1)
		go func() { done[i] <- g.deliver(ctx, "I", i) }()
		synctest.Wait() // so that the numbers are 1, 2, 3
	}
	return done
}

func returned(done []chan error) (which []int) {
	synctest.Wait()
	for i, one := range done {
		if len(one) > 0 {
			which = append(which, i)
		}
	}
	return which
}

// Each number frees its own event and no other, in whatever order numbers come; numbers that nobody waits for are
// nothing.
func TestSingleNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := newGate(pipe.NewWriter(&out))
		done := delivering(t.Context(), g, 3)
		for _, step := range []struct {
			numbers []int64
			want    int
		}{{nil, 0}, {[]int64{3}, 1}, {[]int64{99, 0, -1, 3}, 1}, {[]int64{1, 2, 2}, 3}} {
			g.acknowledge(step.numbers)
			if got := returned(done); len(got) != step.want {
				t.Errorf("after %v returned: %v", step.numbers, got)
			}
			if step.want == 1 && len(done[2]) != 1 {
				t.Errorf("number 3 freed another event")
			}
		}
		for i, one := range done {
			if err := <-one; err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		}
		if len(g.waiting) != 0 {
			t.Errorf("%d numbers are kept", len(g.waiting))
		}
		var line protocol.Happened
		if err := json.NewDecoder(&out).Decode(&line); err != nil || line.Number != 1 || line.InstanceID != "I" {
			t.Errorf("told %+v, %v", line, err)
		}
	})
}

// A wait that is broken off is an error with its cause, keeps nothing, and its number frees nobody later. What is broken
// off before is not even told.
func TestABrokenWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		var out bytes.Buffer
		g := newGate(pipe.NewWriter(&out))
		done := delivering(ctx, g, 1)
		cancel(why)
		if err := <-done[0]; !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		if len(g.waiting) != 0 {
			t.Errorf("%d numbers are kept", len(g.waiting))
		}
		g.acknowledge([]int64{1})
		told := out.Len()
		if err := g.deliver(ctx, "I", 2); !errors.Is(err, why) || out.Len() != told || len(g.waiting) != 0 {
			t.Errorf("got %v, %q", err, out.String())
		}
	})
}

// What could not be written was not told.
func TestAnEventTooLong(t *testing.T) {
	g := newGate(pipe.NewWriter(&bytes.Buffer{}))
	if err := g.deliver(t.Context(), "I", make([]byte, protocol.LineBytesMax)); !errors.Is(err, pipe.ErrTooLong) {
		t.Errorf("got %v", err)
	}
}
