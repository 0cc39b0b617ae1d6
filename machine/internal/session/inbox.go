package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
)

const (
	// inboxMax is how many stanzas may wait in whatsmeow's queue. It holds 2,048; beyond that their order is lost.
	inboxMax = 1000
	// stallMax is how long the first of them may take. After five minutes whatsmeow would go on with the next one, out
	// of order; so the connection is broken off before that, and WhatsApp brings it again.
	stallMax = 4 * time.Minute
)

var errStalled = errors.New("what WhatsApp brought could not be stored in time")

// inbox knows which stanzas came on one connection and are not acknowledged yet, in their order. It holds up the
// goroutine that reads while they are too many: then WhatsApp waits, and nothing is lost or out of order.
type inbox struct {
	mu      sync.Mutex
	ids     []string
	fewer   chan struct{} // closed, and made anew, when ids get fewer
	stalled *time.Timer
}

func newInbox(stalled func()) *inbox {
	box := &inbox{fewer: make(chan struct{}), stalled: time.AfterFunc(stallMax, stalled)}
	box.stalled.Stop()
	return box
}

// add waits while too many are there, until ctx ends.
func (b *inbox) add(ctx context.Context, id string) {
	b.mu.Lock()
	b.ids = append(b.ids, id)
	if len(b.ids) == 1 {
		b.stalled.Reset(stallMax)
	}
	for len(b.ids) > inboxMax {
		fewer := b.fewer
		b.mu.Unlock()
		select {
		case <-fewer:
		case <-ctx.Done():
			return
		}
		b.mu.Lock()
	}
	b.mu.Unlock()
}

// remove takes out an id and those before it: they are handled one after another, so what was not answered never is.
func (b *inbox) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slices.Index(b.ids, id)
	if at < 0 {
		return
	}
	b.ids = slices.Delete(b.ids, 0, at+1)
	close(b.fewer)
	b.fewer = make(chan struct{})
	if len(b.ids) > 0 {
		b.stalled.Reset(stallMax)
	} else {
		b.stalled.Stop()
	}
}

// behind: answers of WhatsApp may lie unread behind what we have not read.
func (b *inbox) behind() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.ids) > inboxMax/2
}

// answered are the stanzas that WhatsApp brings again unless we answer them.
var answered = map[string]bool{
	"message": true, "status": true, "appdata": true, "receipt": true, "notification": true, "call": true,
}

// came is told of every stanza before it is queued.
func (s *Session) came(node *waBinary.Node) {
	id, _ := node.Attrs["id"].(string)
	if conn := s.conn.Load(); conn != nil && id != "" && answered[node.Tag] {
		conn.inbox.add(conn.ctx, id)
	}
}

// went is told of every stanza before it is written.
func (s *Session) went(node *waBinary.Node) {
	id, _ := node.Attrs["id"].(string)
	if conn := s.conn.Load(); conn != nil && (node.Tag == "ack" || node.Tag == "receipt") {
		conn.inbox.remove(id)
	}
}
