package session

import (
	"errors"
	"time"

	"go.mau.fi/whatsmeow/appstate"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"

	"tomada/machine/internal/protocol"
)

// life handles what happens to the connection and to the account. Nothing of it waits for the host: what still holds
// of it, WhatsApp says again at the next connection, and open_session answers whether there is a device.
func (s *Session) life(event any) {
	switch e := event.(type) {
	case *events.QR:
		s.round.begin(s, e.Codes)
	case *events.PairSuccess:
		s.round.stop()
		s.emit(s.account("paired"))
		s.own(s.awaitLogin)
	case *events.PairError:
		s.end(protocol.Ended{Type: "pairing_ended", Reason: e.Error.Error()})
	case *events.ManualLoginReconnect:
		s.resumed.Store(true)
		s.askAnew("paired")
	case *events.Connected:
		s.connected()
	case *events.PushNameSetting, *events.AppStateSyncComplete:
		s.tellName(event)
	case *events.Disconnected:
		if s.client.Store.ID == nil {
			s.end(protocol.Ended{Type: "pairing_ended", Reason: "timeout"})
			return
		}
		s.askAnew("the connection to WhatsApp broke")
	case *events.KeepAliveTimeout:
		s.breakOff(s.conn.Load(), errKeepAlive)
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
		reason := "unlinked"
		if e.OnConnect {
			reason = e.Reason.NumberString()
		}
		s.end(protocol.Ended{Type: "logged_out", Reason: reason})
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

func (s *Session) connected() {
	account := s.account("connected")
	name := account.PushName
	s.ownName.Store(&name)
	s.names.forgetUnknown()
	s.loggedIn.Store(true)
	s.emit(account)
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
