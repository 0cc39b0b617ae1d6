package session

import (
	"context"
	"errors"
	"time"

	"tomada/machine/internal/protocol"
	"tomada/machine/internal/store"
)

const (
	dialTimeout  = 25 * time.Second // also bounds the handshake, of which whatsmeow itself waits 20 s
	firstPause   = 200 * time.Millisecond
	pauseMax     = 8 * time.Second
	loginTimeout = 5 * time.Second // from pairing to WhatsApp's "connect again", which can be missed
)

// connection is one connection to WhatsApp and its context. It is broken off by fail, with the reason.
type connection struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	inbox  *inbox
}

// errStore is the cause of a connection that was broken off because the session store failed.
var errStore = errors.New("the session store failed")

// connect makes a connection with a context of its own.
func (s *Session) connect() error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	conn := &connection{ctx: ctx, cancel: cancel}
	conn.inbox = newInbox(func() { s.breakOff(conn, errStalled) })
	conn.ctx = store.WithFault(ctx, func(err error) {
		s.log.Error("session_store_failed", "error", err.Error())
		s.breakOff(conn, errStore)
	})
	s.conn.Store(conn)
	timer := time.AfterFunc(dialTimeout, func() { cancel(errors.New("WhatsApp does not answer")) })
	err := s.client.ConnectContext(conn.ctx)
	timer.Stop()
	if conn.ctx.Err() != nil { // says more than the error does
		err = context.Cause(conn.ctx)
	}
	if err != nil {
		cancel(err)
	}
	return err
}

// breakOff ends a connection, so that nothing more is acknowledged on it, and has another one made.
func (s *Session) breakOff(conn *connection, why error) {
	conn.cancel(why)
	if s.conn.Load() == conn {
		s.askAnew(why.Error())
	}
}

// askAnew has the connection made again; a second wish while one is standing is the same wish.
func (s *Session) askAnew(why string) {
	select {
	case s.down <- why:
	default:
	}
}

// keep makes the connection again whenever it is down, until the session ends.
func (s *Session) keep() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case why := <-s.down:
			s.reconnect(why)
		}
	}
}

func (s *Session) reconnect(why string) {
	s.awaitPairing()
	s.conn.Load().cancel(errors.New(why)) // first: a Connected of it that is still to come counts no more
	s.telling.Lock()
	if s.loggedIn.Swap(false) && !s.over.Load() {
		s.needs.Host.Emit(s.spec.InstanceID, protocol.Ended{Type: "disconnected", Reason: why})
	}
	s.telling.Unlock()
	s.resumed.Store(true)
	s.client.Disconnect()
	for pause := firstPause; s.pause(pause); pause = min(2*pause, pauseMax) {
		select {
		case <-s.down: // of the connection that is gone
		default:
		}
		err := s.connect()
		if err == nil {
			return
		}
		s.log.Info("not_connected", "error", err.Error())
	}
}
