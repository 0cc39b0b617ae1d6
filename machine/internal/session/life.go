package session

import (
	"context"
	"errors"
	"time"

	"go.mau.fi/whatsmeow/appstate"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"

	"tomada/machine/internal/protocol"
)

// forgetTimeout is for the deletion of a device that WhatsApp logged out, if the store is away.
const forgetTimeout = 20 * time.Second

// life handles what happens to the connection and to the account. Nothing of it waits for the host: what still holds
// of it, WhatsApp says again at the next connection, and open_session answers whether there is a device.
func (s *Session) life(event any) {
	switch e := event.(type) {
	case *events.QR:
		s.round.begin(s, e.Codes)
	case *events.PairSuccess:
		s.pairEnds()
		s.round.stop()
		s.emit(s.account("paired"))
		s.own(s.awaitLogin)
	case *events.PairError:
		s.pairEnds()
		s.end(protocol.Ended{Type: "pairing_ended", Reason: e.Error.Error()})
	case *events.ManualLoginReconnect:
		s.askAnew("paired")
	case *events.Connected:
		s.connected(s.conn.Load())
	case *events.PushNameSetting, *events.AppStateSyncComplete:
		s.tellName(event)
	case *events.Disconnected:
		if s.client.Store.ID == nil {
			s.end(protocol.Ended{Type: "pairing_ended", Reason: "timeout"})
			return
		}
		s.askAnew("the connection to WhatsApp broke")
	case *events.KeepAliveTimeout:
		if conn := s.conn.Load(); !conn.inbox.behind() { // else its answer may lie behind what we hold back
			s.breakOff(conn, errKeepAlive)
		}
	case *events.StreamError:
		s.askAnew("WhatsApp ended the connection: " + e.Code)
	default:
		s.final(event)
	}
}

// final handles what ends a session.
func (s *Session) final(event any) {
	switch e := event.(type) {
	case *events.LoggedOut:
		s.loggedOut(e)
	case *events.StreamReplaced:
		s.end(protocol.Ended{Type: "replaced"})
	case *events.TemporaryBan:
		s.end(protocol.Ended{
			Type: "banned", Code: int(e.Code), Reason: e.Code.String(), ExpiresMs: time.Now().Add(e.Expire).UnixMilli(),
		})
	case *events.ClientOutdated:
		s.end(protocol.Ended{Type: "outdated"})
	case *events.ConnectFailure:
		s.end(protocol.Ended{Type: "connect_failed", Code: int(e.Reason), Reason: e.Message})
	}
}

// connected tells that the account is logged in, unless that connection is gone meanwhile: whatsmeow says it from a
// goroutine of its own, and also after a break.
func (s *Session) connected(conn *connection) {
	account := s.account("connected")
	name := account.PushName
	s.ownName.Store(&name)
	s.names.forgetUnknown()
	s.telling.Lock()
	defer s.telling.Unlock()
	if conn.ctx.Err() != nil || s.over.Load() {
		return
	}
	s.loggedIn.Store(true)
	s.needs.Host.Emit(s.spec.InstanceID, account)
}

// loggedOut forgets the keys, which WhatsApp refuses from now on. Whatsmeow does so too, but under the connection's
// context, which ends with the session: a device that stayed would be refused again and again, and never pair anew.
func (s *Session) loggedOut(e *events.LoggedOut) {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	if err := s.needs.Store.Forget(ctx, s.spec.StoreKey); err != nil {
		s.log.Error("keys_not_deleted", "error", err.Error())
	}
	reason := "unlinked"
	if e.OnConnect {
		reason = e.Reason.NumberString()
	}
	s.unlinked.Store(true)
	s.end(protocol.Ended{Type: "logged_out", Reason: reason})
}

// pairBegins is told by whatsmeow when it begins to store a device that a phone accepted.
func (s *Session) pairBegins(types.JID, string, string) bool {
	done := make(chan struct{})
	s.pairing.Store(&done)
	return true
}

func (s *Session) pairEnds() {
	if done := s.pairing.Swap(nil); done != nil {
		close(*done)
	}
}

// awaitPairing lets a pairing under way come to its end before its connection is ended. WhatsApp's word to connect again
// can overtake the return of the call that wrote our last frame; cancelled then, whatsmeow takes the frame for unsent and
// deletes the keys of a device that the phone shows as linked.
func (s *Session) awaitPairing() {
	done := s.pairing.Load()
	if done == nil {
		return
	}
	select {
	case <-*done:
	case <-time.After(loginTimeout):
	case <-s.ctx.Done():
	}
}

// awaitLogin connects again if WhatsApp's word for it does not come after a pairing.
func (s *Session) awaitLogin() {
	if s.pause(loginTimeout) && !s.resumed.Load() {
		s.askAnew("paired")
	}
}

// tellName tells our own display name if it is news: after a pairing it comes in the phone's own time.
func (s *Session) tellName(event any) {
	if complete, ok := event.(*events.AppStateSyncComplete); ok && complete.Name != appstate.WAPatchCriticalBlock {
		return
	}
	name := s.client.Store.PushName
	if known := s.ownName.Load(); known == nil || name == "" || name == *known {
		return
	}
	s.ownName.Store(&name)
	s.emit(protocol.Named{Type: "named", PushName: name})
}

func (s *Session) account(kind string) protocol.Account {
	device := s.client.Store
	return protocol.Account{
		Type: kind, Device: device.GetJID().String(), Lid: text(device.GetLID()), PushName: device.PushName,
		BusinessName: device.BusinessName, Platform: device.Platform,
	}
}

// ownLid is our own hidden id.
func (s *Session) ownLid() types.JID { return s.client.Store.GetLID().ToNonAD() }

var errKeepAlive = errors.New("WhatsApp did not answer a keepalive")
