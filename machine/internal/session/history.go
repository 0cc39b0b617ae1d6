package session

import (
	"context"
	"time"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
)

const historyTimeout = 2 * time.Minute

// oneHistory is held by the session that reads a part of its history: unpacked it may take many megabytes, and after a
// pairing a phone sends a dozen.
var oneHistory = make(chan struct{}, 1)

// learnHistory reads a part of the account's history that the phone has uploaded, if that is what the message says.
// The messages in it are told to nobody, but whatsmeow keeps what comes with them: names, numbers behind hidden ids,
// privacy tokens, secrets. Only then does the phone learn that we have it.
func (s *Session) learnHistory(e *events.Message) {
	if part := e.RawMessage.GetProtocolMessage().GetHistorySyncNotification(); part != nil {
		s.own(func() { s.readHistory(e.Info.ID, part) })
	}
}

func (s *Session) readHistory(id types.MessageID, part *waE2E.HistorySyncNotification) {
	select {
	case oneHistory <- struct{}{}:
		defer func() { <-oneHistory }()
	case <-s.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, historyTimeout)
	defer cancel()
	_, err := s.client.DownloadHistorySync(ctx, part, true)
	if err == nil {
		err = s.client.SendProtocolMessageReceipt(ctx, id, types.ReceiptTypeHistorySync)
	}
	if err != nil {
		s.log.Warn("history_not_read", "type", part.GetSyncType().String(), "error", err.Error())
	}
}
