// Package machine is the program inside a machine: it speaks the protocol over two pipes and keeps sessions until its
// input ends or it is told to stop; then it closes them and ends.
//
// Which guarantee rests on what: an event with a number is held here, unacknowledged to WhatsApp, until the host has
// acknowledged that number (gate.go). Nothing lies on this computer's disk that matters: after kill -9 WhatsApp brings
// again what was not acknowledged to it.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tomada/machine/internal/pipe"
	"tomada/machine/internal/protocol"
	"tomada/machine/internal/session"
	"tomada/machine/internal/store"
)

// Exit statuses.
const (
	ExitFine     = 0
	ExitNonsense = 65 // the host said something that is not of the protocol
	ExitOccupied = 75 // another process keeps the machine's folder
)

const (
	openTimeout   = 55 * time.Second
	callTimeout   = 20 * time.Second // a question to WhatsApp
	probeTimeout  = 10 * time.Second
	finishTimeout = 4500 * time.Millisecond
)

// Config is what a machine is given; the two programs differ in it alone.
type Config struct {
	In     io.Reader
	Out    io.Writer
	Dir    string // the machine's own folder
	Engine string // for people: library and version
	Store  *store.Store
	HTTP   func(proxyURL string) (*http.Client, error)
	Log    *slog.Logger
}

// machine is one running machine.
type machine struct {
	config Config
	out    *pipe.Writer
	gate   *gate
	spills atomic.Int64
	gone   context.CancelCauseFunc // ends Run: nobody reads what we write

	mu       sync.Mutex
	sessions map[string]*session.Session
	turns    map[string]chan struct{} // instance -> closed when its last order is carried out
}

// Run speaks the protocol until the input ends or ctx does; it returns the process's exit status.
func Run(ctx context.Context, config Config) int {
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	out := pipe.NewWriter(config.Out)
	m := &machine{
		config: config, out: out, gate: newGate(out), gone: gone,
		sessions: map[string]*session.Session{}, turns: map[string]chan struct{}{},
	}
	m.say(Hello(config.Engine))
	m.say(protocol.Ready{Type: "ready"})
	read := make(chan int, 1)
	go func() { read <- m.read(ctx) }()
	status := ExitFine
	select {
	case status = <-read:
	case <-ctx.Done():
	}
	gone(errors.New("the machine ends"))
	m.finish()
	return status
}

// Hello is the first line of a machine over this engine.
func Hello(engine string) protocol.Hello {
	return protocol.Hello{
		Type: "hello", Version: protocol.Version, Pid: os.Getpid(), Engine: engine, Traits: protocol.Traits,
		Asks: slices.Sorted(maps.Keys(asks)),
	}
}

// read takes the host's lines until there are no more.
func (m *machine) read(ctx context.Context) int {
	lines := pipe.NewReader(m.config.In)
	for {
		line, err := lines.Next()
		if errors.Is(err, pipe.ErrTooLong) {
			m.config.Log.Error("host_speaks_nonsense", "error", err.Error())
			return ExitNonsense
		} else if err != nil {
			return ExitFine
		}
		message, err := protocol.Decode(line)
		if err != nil {
			m.config.Log.Error("host_speaks_nonsense", "error", err.Error())
			return ExitNonsense
		}
		if message.Type == "acknowledge" {
			m.gate.acknowledge(message.Numbers)
		} else {
			m.take(ctx, message)
		}
	}
}

// finish closes all sessions, within bounds.
func (m *machine) finish() {
	m.mu.Lock()
	open := slices.Collect(maps.Values(m.sessions))
	m.mu.Unlock()
	var closing sync.WaitGroup
	for _, one := range open {
		closing.Go(one.Close)
	}
	done := make(chan struct{})
	go func() { closing.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(finishTimeout):
		m.config.Log.Warn("sessions_did_not_close")
	}
}

// answer answers a request. Every request has an answer, also where that would be too long for a line.
func (m *machine) answer(id int64, value any, err error) {
	answer := answerOf(id, value, err)
	if written := m.out.Write(answer); errors.Is(written, pipe.ErrTooLong) {
		m.say(answerOf(id, nil, protocol.Errorf(protocol.Refused, "the answer is longer than a line may be")))
	} else if written != nil {
		m.gone(written)
	}
}

func (m *machine) say(value any) {
	err := m.out.Write(value)
	if errors.Is(err, pipe.ErrTooLong) {
		m.config.Log.Error("line_too_long", "error", err.Error())
	} else if err != nil {
		m.gone(err)
	}
}

// Emit tells an event that nobody waits for.
func (m *machine) Emit(instanceID string, event any) {
	m.say(protocol.Happened{Type: "happened", InstanceID: instanceID, Event: event})
}

// Deliver tells an event and waits until the host has committed it.
func (m *machine) Deliver(ctx context.Context, instanceID string, event any) error {
	return m.gate.deliver(ctx, instanceID, event)
}

// Spill keeps what is too long for a line. The host removes the file; what a killed machine left, the next one does.
func (m *machine) Spill(data []byte) (string, error) {
	folder := filepath.Join(m.config.Dir, "spill")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(folder, strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(m.spills.Add(1), 10))
	return path, os.WriteFile(path, data, 0o600)
}

// ClearSpills removes what an earlier machine of this folder left there.
func ClearSpills(dir string) error { return os.RemoveAll(filepath.Join(dir, "spill")) }

func answerOf(id int64, value any, err error) protocol.Answer {
	answer := protocol.Answer{Type: "answer", ID: id, Value: value}
	var known *protocol.Error
	switch {
	case err == nil:
		return answer
	case errors.As(err, &known):
		answer.Error, answer.Kind, answer.Code = known.Words, known.Kind, known.Code
	default:
		answer.Error, answer.Kind = err.Error(), protocol.Unknown
	}
	answer.Value = nil
	return answer
}

func decode(raw json.RawMessage) (protocol.Command, error) {
	var command protocol.Command
	if err := json.Unmarshal(raw, &command); err != nil {
		return command, protocol.Errorf(protocol.Refused, "not a command: %v", err)
	}
	if command.Spec != nil {
		command.InstanceID = command.Spec.InstanceID
	}
	return command, nil
}
