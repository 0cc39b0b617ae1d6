package session

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/protocol"
)

// What a line carries: of a message (base64 makes it a third more), of a name, of a receipt.
const (
	rawBytesMax   = 512 << 10
	nameBytesMax  = 4 << 10
	receiptIDsMax = 1000
)

// handle is called by whatsmeow for whatever happens. False: the event is not safe, do not acknowledge it. WhatsApp
// brings it again at the next connection only, so a failure asks for one.
func (s *Session) handle(event any) (safe bool) {
	conn := s.conn.Load()
	defer func() {
		if panicked := recover(); panicked != nil { // whatsmeow would recover too, and acknowledge
			s.log.Error("handler_panicked", "event", fmt.Sprintf("%T", event), "panic", fmt.Sprint(panicked),
				"stack", string(debug.Stack()))
			s.breakOff(conn, errors.New("an event could not be handled"))
			safe = false
		}
	}()
	if err := s.handled(conn, event); err != nil {
		if conn.ctx.Err() == nil {
			s.log.Warn("event_not_safe", "event", fmt.Sprintf("%T", event), "error", err.Error())
			s.breakOff(conn, errors.New("the host could not be told an event"))
		}
		return false
	}
	return true
}

func (s *Session) handled(conn *connection, event any) error {
	switch e := event.(type) {
	case *events.Message:
		return s.message(conn, e)
	case *events.Receipt:
		return s.receipt(conn, e)
	case *events.UndecryptableMessage:
		return s.deliver(conn, s.undecryptable(conn.ctx, e))
	case *events.ChatPresence:
		s.emit(s.chatPresence(conn.ctx, e))
	case *events.Presence:
		s.emit(s.presence(conn.ctx, e))
	case *events.GroupInfo:
		if e.Name != nil {
			s.names.renamed(e.JID, e.Name.Name)
		}
	default:
		s.life(event)
	}
	return nil
}

// deliver tells an event and waits until it is committed, or the connection is broken off (inbox.go: in time).
func (s *Session) deliver(conn *connection, event any) error {
	return s.needs.Host.Deliver(conn.ctx, s.spec.InstanceID, event)
}

func (s *Session) message(conn *connection, e *events.Message) error {
	raw, err := proto.Marshal(e.RawMessage)
	if err != nil {
		return err
	}
	told := protocol.Message{
		Type: "message", Source: s.source(conn.ctx, e.Info.MessageSource), WaID: e.Info.ID, ServerID: e.Info.ServerID,
		AtMs: e.Info.Timestamp.UnixMilli(), PushName: clipped(e.Info.PushName), Category: e.Info.Category,
		Edit: string(e.Info.Edit), Retries: e.RetryCount,
	}
	if len(raw) <= rawBytesMax {
		told.Raw = raw
	} else if told.File, err = s.needs.Host.Spill(raw); err != nil {
		return err
	}
	if err := s.deliver(conn, told); err != nil {
		return err
	}
	if e.Info.IsFromMe {
		s.learnHistory(e)
	}
	return nil
}

func (s *Session) undecryptable(ctx context.Context, e *events.UndecryptableMessage) protocol.Undecryptable {
	told := protocol.Undecryptable{
		Type: "undecryptable", Source: s.source(ctx, e.Info.MessageSource), WaID: e.Info.ID,
		AtMs: e.Info.Timestamp.UnixMilli(), PushName: clipped(e.Info.PushName), Hide: e.DecryptFailMode == events.DecryptFailHide,
	}
	if e.IsUnavailable {
		told.Unavailable = "unknown"
		if e.UnavailableType != "" {
			told.Unavailable = string(e.UnavailableType)
		}
	}
	return told
}

// people are the receipts that say something to people; the others are between devices, and told to nobody.
var people = map[types.ReceiptType]bool{
	types.ReceiptTypeDelivered: true, types.ReceiptTypeInactive: true, types.ReceiptTypeRead: true,
	types.ReceiptTypeReadSelf: true, types.ReceiptTypePlayed: true,
}

func (s *Session) receipt(conn *connection, e *events.Receipt) error {
	if !people[e.Type] || len(e.MessageIDs) == 0 {
		return nil
	}
	s.sends.outcomesFirst(conn.ctx, e.MessageIDs)
	source := s.source(conn.ctx, e.MessageSource)
	for ids := range slices.Chunk(e.MessageIDs, receiptIDsMax) {
		err := s.deliver(conn, protocol.Receipt{
			Type: "receipt", Source: source, Kind: string(e.Type), WaIDs: ids, AtMs: e.Timestamp.UnixMilli(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) chatPresence(ctx context.Context, e *events.ChatPresence) protocol.Presence {
	state := string(e.State)
	if e.State == types.ChatPresenceComposing && e.Media == types.ChatPresenceMediaAudio {
		state = "recording"
	}
	return protocol.Presence{Type: "presence", Source: s.source(ctx, e.MessageSource), State: state}
}

func (s *Session) presence(ctx context.Context, e *events.Presence) protocol.Presence {
	told := protocol.Presence{
		Type: "presence", Source: s.source(ctx, types.MessageSource{Chat: e.From, Sender: e.From}), State: "available",
	}
	if e.Unavailable {
		told.State = "unavailable"
	}
	if !e.LastSeen.IsZero() {
		told.LastSeenMs = e.LastSeen.UnixMilli()
	}
	return told
}

// source is the envelope's who and where. What WhatsApp did not say of the other kind of address, the store may know.
func (s *Session) source(ctx context.Context, from types.MessageSource) protocol.Source {
	told := protocol.Source{
		Chat: from.Chat.String(), Sender: from.Sender.String(), FromMe: from.IsFromMe, IsGroup: from.IsGroup,
	}
	senderAlt := s.alt(ctx, from.Sender, from.SenderAlt)
	told.SenderAlt = text(senderAlt)
	if from.IsGroup {
		told.ChatName = clipped(s.names.of(ctx, from.Chat, types.EmptyJID))
		return told
	}
	chatAlt := from.RecipientAlt
	if !from.IsFromMe {
		chatAlt = senderAlt
	}
	chatAlt = s.alt(ctx, from.Chat, chatAlt)
	told.ChatAlt = text(chatAlt)
	told.ChatName = clipped(s.names.of(ctx, from.Chat, chatAlt))
	return told
}

// clipped bounds what others call themselves: a line that is too long could never be told.
func clipped(name string) string {
	if len(name) <= nameBytesMax {
		return name
	}
	return strings.ToValidUTF8(name[:nameBytesMax], "")
}

// alt is the other address of a person: as WhatsApp said it, else as the store knows it.
func (s *Session) alt(ctx context.Context, of, said types.JID) types.JID {
	if !said.IsEmpty() {
		return said.ToNonAD()
	}
	found, err := s.client.Store.GetAltJID(ctx, of.ToNonAD())
	if err != nil {
		return types.EmptyJID
	}
	return found
}

func text(jid types.JID) string {
	if jid.IsEmpty() {
		return ""
	}
	return jid.String()
}
