package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	wastore "go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/protocol"
	"tomada/machine/internal/store"
)

// host keeps what a session tells it; commit says what becomes of an event that waits for it.
type host struct {
	mu      sync.Mutex
	told    []any
	spilled [][]byte
	commit  func(context.Context, any) error
}

func (h *host) Emit(_ string, event any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, event)
}

func (h *host) Deliver(ctx context.Context, instanceID string, event any) error {
	h.Emit(instanceID, event)
	if h.commit == nil {
		return nil
	}
	return h.commit(ctx, event)
}

func (h *host) Spill(data []byte) (string, error) {
	h.spilled = append(h.spilled, data)
	return "spilled", nil
}

func (h *host) events() []any {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told)
}

// pairs is a store of pairs that is empty.
type pairs struct{ wastore.LIDStore }

func (pairs) GetLIDForPN(context.Context, types.JID) (types.JID, error) { return types.EmptyJID, nil }
func (pairs) GetPNForLID(context.Context, types.JID) (types.JID, error) { return types.EmptyJID, nil }

// opened is a session with one connection, of which nothing is connected.
func opened(t *testing.T) (*Session, *host) {
	t.Helper()
	sessions, err := store.Open("postgres://nobody@127.0.0.1:1/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sessions.Close() })
	told := &host{}
	device := sessions.NewDevice("key")
	device.LIDs = pairs{}
	s, err := newSession(protocol.Spec{InstanceID: "I", StoreKey: "key"}, Needs{
		Host: told, Store: sessions, Log: slog.New(slog.DiscardHandler),
		HTTP: func(string) (*http.Client, error) { return http.DefaultClient, nil },
	}, device)
	if err != nil {
		t.Fatal(err)
	}
	s.conn.Store(anew(s))
	return s, told
}

func anew(s *Session) *connection {
	ctx, cancel := context.WithCancelCause(s.ctx)
	conn := &connection{ctx: ctx, cancel: cancel}
	conn.inbox = newInbox(func() { s.breakOff(conn, errStalled) })
	return conn
}

func incoming(id string, text string) *events.Message {
	person := types.NewJID("5544999999999", types.DefaultUserServer)
	return &events.Message{
		Info: types.MessageInfo{
			MessageSource: types.MessageSource{Chat: person, Sender: person}, ID: id, Timestamp: time.UnixMilli(1764000000000),
		},
		RawMessage: &waE2E.Message{Conversation: proto.String(text)},
	}
}

func wantsAnother(s *Session) bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

// ---- what opens

// A store that does not answer is to be asked again, and what users read of it names no server, database or user.
func TestTheStoreIsAway(t *testing.T) {
	s, _ := opened(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // it waits for the store as long as its caller does
	defer cancel()
	_, _, err := Open(ctx, s.spec, s.needs)
	var refusal *protocol.Error
	if !errors.As(err, &refusal) || refusal.Kind != protocol.Retry {
		t.Fatalf("answered %v", err)
	}
	for _, secret := range []string{"nobody", "nowhere", "127.0.0.1"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("it names %q: %v", secret, err)
		}
	}
}

// ---- what acknowledges what

// A handler answers true only for what the host has committed. Else its connection is over before it answers, so that
// whatsmeow, which then looks at the connection's context, acknowledges nothing, and another connection is asked for.
func TestHandling(t *testing.T) {
	lost := errors.New("the pipe broke")
	for name, one := range map[string]struct {
		event  any
		commit func(context.Context, any) error
		safe   bool
	}{
		"a message that is committed": {incoming("A", "oi"), nil, true},
		"a message that is not":       {incoming("A", "oi"), func(context.Context, any) error { return lost }, false},
		"a receipt that is not": {
			&events.Receipt{MessageIDs: []string{"A"}}, func(context.Context, any) error { return lost }, false,
		},
		"an unreadable message that is not": {
			&events.UndecryptableMessage{}, func(context.Context, any) error { return lost }, false,
		},
		"a handler that panics":     {incoming("A", "oi"), func(context.Context, any) error { panic("bug") }, false},
		"an event that is no one's": {&events.OfflineSyncCompleted{}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, told := opened(t)
			told.commit = one.commit
			conn := s.conn.Load()
			if safe := s.handle(one.event); safe != one.safe {
				t.Fatalf("safe: %v", safe)
			}
			if over := conn.ctx.Err() != nil; over == one.safe || wantsAnother(s) == one.safe {
				t.Errorf("the connection is over: %v", over)
			}
		})
	}
}

// A handler that waits is freed when its connection is broken off, and breaks off no other.
func TestAWaitingHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		told.commit = func(ctx context.Context, _ any) error { <-ctx.Done(); return ctx.Err() }
		safe := make(chan bool, 1)
		old := s.conn.Load()
		go func() { safe <- s.handle(incoming("A", "oi")) }()
		synctest.Wait()
		next := anew(s)
		s.conn.Store(next)
		old.cancel(errClosed)
		if <-safe || next.ctx.Err() != nil || wantsAnother(s) {
			t.Errorf("next: %v", next.ctx.Err())
		}
	})
}

// A message of any size fits: what is too long for a line goes through a file. A receipt for very many messages is told
// in parts, and a name of any length is cut, at a character.
func TestSizes(t *testing.T) {
	s, told := opened(t)
	big := incoming("A", strings.Repeat("x", rawBytesMax))
	big.Info.PushName = strings.Repeat("é", nameBytesMax)
	s.handle(big)
	s.handle(&events.Receipt{MessageIDs: slices.Repeat([]string{"A"}, 2*receiptIDsMax+1), Type: types.ReceiptTypeRead})
	got := told.events()
	if len(got) != 4 {
		t.Fatalf("%d events", len(got))
	}
	message := got[0].(protocol.Message)
	if message.File != "spilled" || message.Raw != nil || len(told.spilled[0]) < rawBytesMax {
		t.Errorf("file %q, %d bytes", message.File, len(message.Raw))
	}
	if message.PushName != strings.Repeat("é", nameBytesMax/2) {
		t.Errorf("a name of %d bytes, ends %q", len(message.PushName), message.PushName[len(message.PushName)-3:])
	}
	for i, want := range []int{receiptIDsMax, receiptIDsMax, 1} {
		if ids := got[i+1].(protocol.Receipt).WaIDs; len(ids) != want {
			t.Errorf("part %d has %d", i, len(ids))
		}
	}
}

// ---- holding back

// Reading is held up while more stanzas wait than whatsmeow's queue may take, and goes on as they are answered.
func TestHoldingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := opened(t)
		read := 0
		go func() {
			for i := range 3 * inboxMax {
				s.came(&waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{"id": fmt.Sprint(i)}})
				read = i + 1
			}
		}()
		synctest.Wait()
		if read != inboxMax || !s.conn.Load().inbox.behind() {
			t.Fatalf("%d were read", read)
		}
		s.went(&waBinary.Node{Tag: "receipt", Attrs: waBinary.Attrs{"id": "99"}}) // and with it those before it
		s.went(&waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"id": "unknown"}})
		s.went(&waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"id": "500"}})
		synctest.Wait()
		if read != inboxMax+100 {
			t.Errorf("%d were read after 100 answers", read)
		}
		s.conn.Load().cancel(errClosed)
		synctest.Wait()
		if read != 3*inboxMax {
			t.Errorf("a connection that is over still holds its reader, at %d", read)
		}
	})
}

// Whatsmeow notes each stanza where we hold it up, before it queues it. It is its word that this rests on.
func TestWhatsmeowNotesStanzas(t *testing.T) {
	s, _ := opened(t)
	for _, tag := range []string{"message", "receipt", "notification", "call", "presence", "chatstate", "iq", "ack"} {
		frame, err := waBinary.Marshal(waBinary.Node{Tag: tag, Attrs: waBinary.Attrs{"id": "A" + tag}})
		if err != nil {
			t.Fatal(err)
		}
		s.client.DangerousInternals().HandleFrame(t.Context(), frame, make(chan *waBinary.Node, 1))
	}
	want := []string{"Amessage", "Areceipt", "Anotification", "Acall"}
	if got := s.conn.Load().inbox.ids; !slices.Equal(got, want) {
		t.Errorf("noted %v", got)
	}
}

// A stanza that is not answered for four minutes breaks its connection off, whatever it waits for; others that are
// answered meanwhile give no time to it, and time that passes while none waits costs nothing.
func TestAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := opened(t)
		box := s.conn.Load().inbox
		time.Sleep(2 * stallMax)
		box.add(t.Context(), "A")
		box.add(t.Context(), "B")
		time.Sleep(stallMax - time.Second)
		box.remove("A")
		time.Sleep(stallMax - time.Second)
		synctest.Wait()
		if s.conn.Load().ctx.Err() != nil {
			t.Fatal("too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if why := context.Cause(s.conn.Load().ctx); !errors.Is(why, errStalled) || !wantsAnother(s) {
			t.Errorf("cause: %v", why)
		}
	})
}

// A keepalive that is not answered is a break, except while we ourselves hold the answer back.
func TestKeepAlive(t *testing.T) {
	s, _ := opened(t)
	for i := range inboxMax {
		s.conn.Load().inbox.add(t.Context(), fmt.Sprint(i))
	}
	s.handle(&events.KeepAliveTimeout{})
	if s.conn.Load().ctx.Err() != nil {
		t.Error("broken off while behind")
	}
	s.conn.Load().inbox.remove(fmt.Sprint(inboxMax - 1))
	s.handle(&events.KeepAliveTimeout{})
	if s.conn.Load().ctx.Err() == nil || !wantsAnother(s) {
		t.Error("not broken off")
	}
}

// ---- life

// The end is told once, and nothing of the session's life after it.
func TestOneEnd(t *testing.T) {
	s, told := opened(t)
	for _, event := range []any{
		&events.StreamReplaced{}, &events.ClientOutdated{}, &events.TemporaryBan{}, &events.ConnectFailure{},
		&events.PairError{Error: errors.New("late")}, &events.Connected{}, &events.Presence{},
	} {
		s.handle(event)
	}
	s.Close()
	if got := told.events(); len(got) != 1 || got[0].(protocol.Ended).Type != "replaced" || s.ctx.Err() == nil {
		t.Errorf("told %+v", got)
	}
}

// Connected counts for the connection that stands only: whatsmeow says it also of one that broke meanwhile.
func TestALateConnected(t *testing.T) {
	s, told := opened(t)
	s.conn.Load().cancel(errKeepAlive)
	s.handle(&events.Connected{})
	if len(told.events()) != 0 || s.loggedIn.Load() {
		t.Fatalf("told %+v", told.events())
	}
	s.conn.Store(anew(s))
	s.handle(&events.Connected{})
	if got := told.events(); len(got) != 1 || got[0].(protocol.Account).Type != "connected" || !s.loggedIn.Load() {
		t.Errorf("told %+v", got)
	}
}

// A log-out that WhatsApp was not told, as far as we know, is not told as done; nor is it hidden that it happened.
func TestALogoutThatFails(t *testing.T) {
	s, _ := opened(t)
	var known *protocol.Error
	if err := s.Logout(t.Context()); !errors.As(err, &known) || known.Kind != protocol.Retry {
		t.Errorf("not connected: %v", err)
	}
	s.loggedIn.Store(true)
	jid := types.NewADJID("5511", 0, 1)
	s.client.Store.ID = &jid
	if err := s.Logout(t.Context()); err == nil || s.leaving.Load() || s.over.Load() {
		t.Errorf("the connection broke: %v, over %v", err, s.over.Load())
	}
}

// ---- QR codes

// A round shows each code for as long as WhatsApp's own page does, and ends in words; a pairing stops it.
func TestARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		began := time.Now()
		s.handle(&events.QR{Codes: []string{"one", "two", "three"}})
		synctest.Wait()
		for i, want := range []time.Duration{0, firstCodeLives, firstCodeLives + laterCodeLives} {
			time.Sleep(time.Until(began.Add(want)))
			synctest.Wait()
			got := told.events()
			if len(got) != i+1 || got[i].(protocol.QrIssued).ExpiresMs <= time.Now().UnixMilli() {
				t.Fatalf("after %v: %+v", want, got)
			}
		}
		time.Sleep(laterCodeLives)
		synctest.Wait()
		if got := told.events(); len(got) != 4 || got[3] != any(protocol.Ended{Type: "pairing_ended", Reason: "timeout"}) {
			t.Errorf("at the end: %+v", got)
		}
		s.Close()
	})
}

// A second round takes the place of the first, and a round that was stopped says no more.
func TestRoundsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		s.handle(&events.QR{Codes: []string{"one", "never"}})
		synctest.Wait()
		s.handle(&events.QR{Codes: []string{"two", "neither"}})
		synctest.Wait()
		s.round.stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := told.events(); len(got) != 2 || got[1].(protocol.QrIssued).Code != "two" {
			t.Errorf("told %+v", got)
		}
		s.Close()
	})
}

// Without a round there is no code for a phone.
func TestAPhoneCodeWithoutARound(t *testing.T) {
	s, _ := opened(t)
	var known *protocol.Error
	if _, err := s.PhoneCode(t.Context(), "5544"); !errors.As(err, &known) || known.Kind != protocol.Refused {
		t.Errorf("got %v", err)
	}
}

// ---- names

// Subjects are kept up to a bound, a change is newer than an answer, and what WhatsApp would not say is asked again
// after the next connection.
func TestSubjects(t *testing.T) {
	s, _ := opened(t)
	group := types.NewJID("1203", types.GroupServer)
	s.handle(&events.GroupInfo{JID: group, Name: &types.GroupName{Name: "Equipe"}})
	if got := s.names.of(t.Context(), group, types.EmptyJID); got != "Equipe" {
		t.Errorf("got %q", got)
	}
	unknown := types.NewJID("1204", types.GroupServer)
	if got := s.names.of(t.Context(), unknown, types.EmptyJID); got != "" { // asked: not connected
		t.Errorf("got %q", got)
	}
	if _, known := s.names.subjects["1204"]; !known {
		t.Error("it would be asked again for every message")
	}
	s.names.forgetUnknown()
	if _, known := s.names.subjects["1204"]; known || s.names.subjects["1203"] != "Equipe" {
		t.Errorf("kept %v", s.names.subjects)
	}
	for i := range 3 * subjectsMax {
		s.names.renamed(types.NewJID(fmt.Sprint(i), types.GroupServer), "x")
	}
	if len(s.names.subjects) > subjectsMax {
		t.Errorf("%d subjects", len(s.names.subjects))
	}
}

// A pairing under way comes to its end before its connection is ended; nothing waits for one that does not end.
func TestAPairingIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := opened(t)
		s.awaitPairing() // none is under way
		for name, end := range map[string]func(){"ended": s.pairEnds, "for ever": func() {}} {
			s.pairBegins(types.EmptyJID, "", "")
			waited := make(chan time.Duration, 1)
			go func() {
				began := time.Now()
				s.awaitPairing()
				waited <- time.Since(began)
			}()
			time.Sleep(time.Second)
			end()
			if took := <-waited; (name == "ended") != (took == time.Second) || took > loginTimeout {
				t.Errorf("%s: waited %s", name, took)
			}
			s.pairEnds()
		}
		s.Close()
	})
}
