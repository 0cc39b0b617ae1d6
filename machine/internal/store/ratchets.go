package store

import (
	"context"

	"go.mau.fi/whatsmeow/store"
)

// ratchets lets one at a time read a device's Signal sessions, turn a ratchet and store it: a send or a decryption.
//
// whatsmeow locks nothing between them. A send to a contact who writes at the same moment then reads a session that the
// decryption is about to change, one of the two stores over the other, and the next message is encrypted with a key that
// was used already: its receiver takes it for a repetition and drops it, though WhatsApp has acknowledged it.
//
// A decryption is wholly within DoDecryptionTxn. A send begins at GetManySessions and ends at PutManySessions, or with
// its context's release if it does not come that far. It may ask WhatsApp for keys in between, whose answer no
// decryption holds up. Always first this, then a connection of the pool. What is encrypted otherwise, the answer to a
// retry and requests to the own phone, is not covered.
type ratchets chan struct{}

func newRatchets() ratchets { return make(ratchets, 1) }

func (r ratchets) take(ctx context.Context) error {
	select {
	case r <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r ratchets) release() { <-r }

type turnKey struct{}

// turn is one send's use of the ratchets. It is used by one goroutine.
type turn struct{ held ratchets }

func (t *turn) end() {
	if t.held != nil {
		t.held.release()
		t.held = nil
	}
}

// ForSend returns the context for one SendMessage, and what has to be called when that has returned.
func ForSend(ctx context.Context) (context.Context, func()) {
	turn := &turn{}
	return context.WithValue(ctx, turnKey{}, turn), turn.end
}

// turningSessions are the sessions of a device whose sends take their turn.
type turningSessions struct {
	store.SessionStore
	ratchets ratchets
}

func (t turningSessions) GetManySessions(ctx context.Context, addresses []string) (map[string][]byte, error) {
	if turn, ok := ctx.Value(turnKey{}).(*turn); ok && turn.held == nil {
		if err := t.ratchets.take(ctx); err != nil {
			return nil, err
		}
		turn.held = t.ratchets
	}
	return t.SessionStore.GetManySessions(ctx, addresses)
}

func (t turningSessions) PutManySessions(ctx context.Context, sessions map[string][]byte) error {
	if turn, ok := ctx.Value(turnKey{}).(*turn); ok {
		defer turn.end()
	}
	return t.SessionStore.PutManySessions(ctx, sessions)
}
