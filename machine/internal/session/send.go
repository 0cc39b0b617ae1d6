package session

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/protocol"
	"tomada/machine/internal/store"
)

const (
	waitingMax    = 1000             // sends that wait in one session
	sendTimeout   = 90 * time.Second // all of a send; WhatsApp's acknowledgement has 75 s of it, as in whatsmeow
	finishTimeout = 3 * time.Second  // a send under way when the session is closed
	retryPause    = time.Second      // after a send that may be given again, so that it cannot go round at full speed
	outcomeWait   = 5 * time.Second  // for the outcome of a send whose receipt came first
)

// sends gives a session's messages to WhatsApp, one at a time and in the order of the host, and tells what became of
// each: sent, refused, to be given again, or unknown. A message keeps its id through all of that, so one that is given
// twice is one message to whoever gets it.
type sends struct {
	session *Session
	queue   chan protocol.Outgoing

	mu     sync.Mutex
	open   map[string]chan struct{} // id -> closed when its outcome was told
	closed bool

	stop chan struct{}
	done chan struct{}
}

func newSends(s *Session) *sends {
	return &sends{
		session: s, queue: make(chan protocol.Outgoing, waitingMax), open: map[string]chan struct{}{},
		stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Send queues a message; its outcome is an event.
func (s *Session) Send(message protocol.Outgoing) error {
	q := s.sends
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return protocol.Errorf(protocol.Retry, "the session is closing")
	}
	select {
	case q.queue <- message:
		q.open[message.WaID] = make(chan struct{})
		return nil
	default:
		return protocol.Errorf(protocol.Retry, "too many sends wait in this session")
	}
}

func (q *sends) work() {
	defer close(q.done)
	defer q.giveBack("the session was closed before it was sent")
	for !q.stopped() {
		select {
		case <-q.stop:
		case message := <-q.queue:
			outcome := q.send(message)
			q.settle(message.WaID, outcome)
			if failed, ok := outcome.(protocol.SendFailed); ok && failed.Kind != protocol.Refused {
				q.giveBack("one before it was not sent") // so that the host can send them in their order
				q.pause(retryPause)
			}
		}
	}
}

// giveBack tells of those that wait that they were not sent.
func (q *sends) giveBack(why string) {
	for {
		select {
		case message := <-q.queue:
			q.settle(message.WaID, failed(message, protocol.Errorf(protocol.Retry, "%s", why)))
		default:
			return
		}
	}
}

// close stops taking sends, and waits a moment for the one under way; work gives back those that wait.
func (q *sends) close() {
	q.mu.Lock()
	already := q.closed
	q.closed = true
	q.mu.Unlock()
	if already {
		return
	}
	close(q.stop)
	select {
	case <-q.done:
	case <-time.After(finishTimeout):
	case <-q.session.ctx.Done():
	}
}

func (q *sends) settle(id string, outcome any) {
	q.session.needs.Host.Emit(q.session.spec.InstanceID, outcome)
	q.mu.Lock()
	defer q.mu.Unlock()
	if told := q.open[id]; told != nil {
		close(told)
		delete(q.open, id)
	}
}

// outcomesFirst waits for the outcomes of these sends: a quick phone's receipt can overtake WhatsApp's acknowledgement,
// and must not be told before it.
func (q *sends) outcomesFirst(ctx context.Context, ids []types.MessageID) {
	for _, id := range ids {
		q.mu.Lock()
		told := q.open[id]
		q.mu.Unlock()
		if told == nil {
			continue
		}
		select {
		case <-told:
		case <-ctx.Done():
			return
		case <-time.After(outcomeWait):
			return
		}
	}
}

func (q *sends) stopped() bool {
	select {
	case <-q.stop:
		return true
	default:
		return false
	}
}

func (q *sends) pause(wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-q.stop:
	}
}

func (q *sends) send(message protocol.Outgoing) (outcome any) {
	s := q.session
	defer func() {
		if panicked := recover(); panicked != nil { // of the message's making: it would again, in every session's machine
			s.log.Error("send_panicked", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
			outcome = failed(message, protocol.Errorf(protocol.Refused, "the engine cannot send this message"))
		}
	}()
	to, err := types.ParseJID(message.Chat)
	if err != nil || to.IsEmpty() {
		return failed(message, protocol.Errorf(protocol.Refused, "not an address of WhatsApp"))
	}
	content := &waE2E.Message{}
	if err := proto.Unmarshal(message.Raw, content); err != nil {
		return failed(message, protocol.Errorf(protocol.Refused, "not a message of WhatsApp"))
	}
	if !s.loggedIn.Load() || s.ctx.Err() != nil {
		return failed(message, protocol.Errorf(protocol.Retry, "not connected"))
	}
	if message.TypingS > 0 {
		q.showTyping(to, time.Duration(message.TypingS*float64(time.Second)))
	}
	return q.transmit(message, to, content)
}

func (q *sends) transmit(message protocol.Outgoing, to types.JID, content *waE2E.Message) any {
	s := q.session
	shown := to
	if jid, err := types.ParseJID(message.ShownAs); err == nil && !jid.IsEmpty() {
		shown = jid
	}
	ctx, cancel := context.WithTimeout(s.ctx, sendTimeout)
	defer cancel()
	if shown.Server == types.GroupServer {
		s.names.of(ctx, shown, types.EmptyJID) // may take a moment, and afterwards the outcome must not wait
	}
	var fault atomic.Pointer[error]
	sending := store.WithFault(ctx, func(err error) {
		s.log.Error("session_store_failed", "error", err.Error())
		fault.CompareAndSwap(nil, &err)
	})
	extra := whatsmeow.SendRequestExtra{ID: message.WaID}
	if nodes := nodesOf(message.Nodes); len(nodes) > 0 {
		extra.AdditionalNodes = &nodes
	}
	sending, end := store.ForSend(sending)
	response, err := s.client.SendMessage(sending, to, content, extra)
	end()
	switch {
	case fault.Load() != nil: // also without an error: whatsmeow leaves out a device for which the store failed, and sends
		// to the others. It goes again, under the same id
		return failed(message, protocol.Errorf(protocol.Retry, "the session store failed"))
	case err != nil:
		return failed(message, failure(err))
	}
	alt := s.alt(s.ctx, shown, types.EmptyJID)
	return protocol.Sent{
		Type: "sent", WaID: message.WaID, ServerID: response.ServerID, AtMs: atMs(response.Timestamp),
		Chat: shown.String(), ChatAlt: text(alt), ChatName: clipped(s.names.of(s.ctx, shown, alt)),
		SenderAlt: text(s.ownLid()),
	}
}

func (q *sends) showTyping(to types.JID, wait time.Duration) {
	s := q.session
	err := s.client.SendChatPresence(s.ctx, to, types.ChatPresenceComposing, types.ChatPresenceMediaText)
	if err != nil {
		s.log.Info("typing_not_shown", "kind", string(failure(err).Kind)) // not err: it may name the number
	}
	q.pause(wait)
}

func failed(message protocol.Outgoing, err *protocol.Error) protocol.SendFailed {
	return protocol.SendFailed{
		Type: "send_failed", WaID: message.WaID, Error: err.Words, Kind: err.Kind, Code: err.Code,
	}
}

// busy are WhatsApp's answers to a question that mean "not now".
var busy = map[int]bool{429: true, 500: true, 503: true, 530: true}

// failure is what an error of whatsmeow means. Where it leaves a doubt it counts as one: whoever calls a message unsent
// that has arrived makes somebody send it twice, and here a doubt costs a stanza under the same id.
func failure(err error) *protocol.Error {
	words := err.Error()
	var ours *protocol.Error
	var iq *whatsmeow.IQError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, whatsmeow.ErrNotLoggedIn), errors.Is(err, whatsmeow.ErrNotConnected):
		return &protocol.Error{Kind: protocol.Retry, Words: words}
	case errors.Is(err, whatsmeow.ErrServerReturnedError):
		return &protocol.Error{Kind: protocol.Refused, Code: lastNumber(words), Words: words}
	case strings.Contains(words, "no LID found for"), errors.Is(err, whatsmeow.ErrGroupNotFound):
		return &protocol.Error{Kind: protocol.Refused, Code: 404, Words: words}
	case errors.As(err, &iq) && busy[iq.Code]: // a question before the frame: nothing was sent
		return &protocol.Error{Kind: protocol.Retry, Code: iq.Code, Words: words}
	case errors.As(err, &iq) && iq.Code != 0:
		return &protocol.Error{Kind: protocol.Refused, Code: iq.Code, Words: words}
	case errors.Is(err, whatsmeow.ErrUnknownServer), errors.Is(err, whatsmeow.ErrRecipientADJID),
		errors.Is(err, whatsmeow.ErrPhoneNumberTooShort), errors.Is(err, whatsmeow.ErrPhoneNumberIsNotInternational),
		errors.Is(err, whatsmeow.ErrBroadcastListUnsupported), errors.Is(err, socket.ErrFrameTooLarge):
		return &protocol.Error{Kind: protocol.Refused, Words: words}
	}
	return &protocol.Error{Kind: protocol.Unknown, Words: words}
}

func lastNumber(words string) int {
	number, _ := strconv.Atoi(words[strings.LastIndexByte(words, ' ')+1:])
	return number
}

func atMs(at time.Time) int64 {
	if at.IsZero() || at.Unix() <= 0 {
		return time.Now().UnixMilli()
	}
	return at.UnixMilli()
}

func nodesOf(given []protocol.Node) []waBinary.Node {
	nodes := make([]waBinary.Node, 0, len(given))
	for _, one := range given {
		node := waBinary.Node{Tag: one.Tag, Attrs: waBinary.Attrs{}}
		for name, value := range one.Attrs {
			node.Attrs[name] = value
		}
		if len(one.Content) > 0 {
			node.Content = nodesOf(one.Content)
		}
		nodes = append(nodes, node)
	}
	return nodes
}
