package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tomada/machine/internal/pipe"
	"tomada/machine/internal/protocol"
	"tomada/machine/internal/session"
	"tomada/machine/internal/store"
)

const patience = 20 * time.Second

// running is a whole machine over two pipes, without a process, network or database.
type running struct {
	t      *testing.T
	in     *io.PipeWriter
	out    *bufio.Scanner
	status chan int
	stop   context.CancelFunc
}

func start(t *testing.T) *running {
	t.Helper()
	sessions, err := store.Open("postgres://nobody@127.0.0.1:1/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	hostReads, out := io.Pipe()
	in, hostWrites := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t, hostWrites, bufio.NewScanner(hostReads), make(chan int, 1), stop}
	go func() {
		r.status <- Run(ctx, Config{
			In: in, Out: out, Dir: t.TempDir(), Engine: "none", Store: sessions, Log: slog.New(slog.DiscardHandler),
			HTTP: func(string) (*http.Client, error) { return http.DefaultClient, nil },
		})
		_ = out.Close()
	}()
	t.Cleanup(func() { stop(); _ = hostWrites.Close(); _ = hostReads.Close() })
	return r
}

func (r *running) say(line string) {
	r.t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) hear(into any) {
	r.t.Helper()
	if !r.out.Scan() {
		r.t.Fatal("the machine says no more")
	}
	if err := json.Unmarshal(r.out.Bytes(), into); err != nil {
		r.t.Fatalf("%q: %v", r.out.Text(), err)
	}
}

func (r *running) greeted() *running {
	r.t.Helper()
	var hello protocol.Hello
	var ready protocol.Ready
	r.hear(&hello)
	r.hear(&ready)
	if hello.Type != "hello" || hello.Version != 2 || hello.Pid != os.Getpid() || hello.Engine != "none" || ready.Type != "ready" {
		r.t.Fatalf("greeted with %+v, %+v", hello, ready)
	}
	return r
}

func (r *running) ends(want int) {
	r.t.Helper()
	go func() { _, _ = io.Copy(io.Discard, readerOf(r.out)) }()
	select {
	case got := <-r.status:
		if got != want {
			r.t.Errorf("status %d, want %d", got, want)
		}
	case <-time.After(patience):
		r.t.Error("the machine does not end")
	}
}

func readerOf(lines *bufio.Scanner) io.Reader { return &drain{lines} }

type drain struct{ lines *bufio.Scanner }

func (d *drain) Read([]byte) (int, error) {
	if !d.lines.Scan() {
		return 0, io.EOF
	}
	return 0, nil
}

// A machine says hello and ready, and ends with 0 when its input ends, also in the middle of a line.
func TestHelloReadyEnd(t *testing.T) {
	r := start(t).greeted()
	_, _ = io.WriteString(r.in, `{"type":"requ`)
	_ = r.in.Close()
	r.ends(ExitFine)
}

// SIGTERM, as a context that ends, ends it with 0.
func TestStop(t *testing.T) {
	r := start(t).greeted()
	r.stop()
	r.ends(ExitFine)
}

// Nonsense, and a line that is too long, end it with 65.
func TestNonsenseEndsIt(t *testing.T) {
	for _, line := range []string{`nonsense`, `{"type":"hello"}`, strings.Repeat("x", protocol.LineBytesMax+1)} {
		r := start(t).greeted()
		go func() { _, _ = io.WriteString(r.in, line+"\n") }()
		r.ends(ExitNonsense)
	}
}

// Whatever is asked, it is answered: what is unknown or wrong is refused, what is not there may come later. Nothing of
// it ends the machine, nor does an acknowledgement of what it never told.
func TestRefusals(t *testing.T) {
	r := start(t).greeted()
	r.say(`{"type":"acknowledge","numbers":[1,99]}`)
	for i, one := range []struct {
		command string
		kind    protocol.Kind
	}{
		{`{"type":"fly","instance_id":"I"}`, protocol.Refused},
		{`{"type":"ask","instance_id":"I","name":"fly"}`, protocol.Refused},
		{`{}`, protocol.Refused},
		{`7`, protocol.Refused},
		{`null`, protocol.Refused},
		{`{"type":"open_session"}`, protocol.Refused},
		{`{"type":"open_session","spec":{"instance_id":"I"}}`, protocol.Refused},
		{`{"type":"send","instance_id":"I","message":{"wa_id":"X"}}`, protocol.Retry},
		{`{"type":"logout","instance_id":"I"}`, protocol.Retry},
		{`{"type":"ask","instance_id":"I","name":"numbers"}`, protocol.Retry},
		{`{"type":"close_session","instance_id":"I"}`, ""},
	} {
		r.say(fmt.Sprintf(`{"type":"request","id":%d,"command":%s}`, i, one.command))
		var answer protocol.Answer
		r.hear(&answer)
		if answer.Type != "answer" || answer.ID != int64(i) || answer.Kind != one.kind || (answer.Error == "") != (one.kind == "") {
			t.Errorf("%s: %+v", one.command, answer)
		}
	}
	_ = r.in.Close()
	r.ends(ExitFine)
}

// Orders of one instance are carried out one after another in the order given; another instance does not wait for them.
func TestTurns(t *testing.T) {
	m := &machine{turns: map[string]chan struct{}{}}
	var order []int
	first, last := make(chan struct{}), make(chan struct{})
	m.inTurn("I", func() { <-first; order = append(order, 0) })
	for i := 1; i < 20; i++ {
		m.inTurn("I", func() { order = append(order, i) }) // unguarded: the race detector sees two at once
	}
	m.inTurn("I", func() { close(last) })
	other := make(chan struct{})
	m.inTurn("J", func() { close(other) })
	await(t, other)
	close(first)
	await(t, last)
	for i, got := range order {
		if i != got {
			t.Fatalf("the order is %v", order)
		}
	}
	deadline := time.Now().Add(patience)
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		m.mu.Lock()
		left := len(m.turns)
		m.mu.Unlock()
		if left == 0 {
			return
		}
	}
	t.Error("turns are kept")
}

func await(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it waits")
	}
}

// An answer that is too long for a line is answered as an error: whoever asked must not wait for ever.
func TestAnAnswerTooLong(t *testing.T) {
	var out bytes.Buffer
	m := &machine{out: pipe.NewWriter(&out), config: Config{Log: slog.New(slog.DiscardHandler)}}
	m.answer(7, strings.Repeat("x", protocol.LineBytesMax), nil)
	var answer protocol.Answer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.ID != 7 || answer.Kind != protocol.Refused {
		t.Errorf("answered %.80q, %v", out.String(), err)
	}
}

// A question that panics in the engine is an answer with a doubt, not the end of the other sessions.
func TestAQuestionThatPanics(t *testing.T) {
	asks["panic"] = func(context.Context, *session.Session, json.RawMessage) (any, error) { panic("deep inside") }
	defer delete(asks, "panic")
	m := &machine{sessions: map[string]*session.Session{"I": {}}, config: Config{Log: slog.New(slog.DiscardHandler)}}
	_, err := m.question(t.Context(), protocol.Command{Type: "ask", InstanceID: "I", Name: "panic"})
	var known *protocol.Error
	if !errors.As(err, &known) || known.Kind != protocol.Unknown {
		t.Errorf("got %v", err)
	}
}
