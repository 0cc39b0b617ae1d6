package session

import (
	"context"
	"sync"
	"time"

	"go.mau.fi/whatsmeow"

	"tomada/machine/internal/protocol"
)

// How long WhatsApp's own web page shows each code; see whatsmeow's events.QR.
const (
	firstCodeLives = 60 * time.Second
	laterCodeLives = 20 * time.Second
)

// round is a round of QR codes. We keep it ourselves, since whatsmeow's own (GetQRChannel) disconnects when its codes
// run out, also in the midst of a pairing.
type round struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	began  bool
}

func (r *round) begin(s *Session, codes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r.cancel, r.began = cancel, true
	s.own(func() { s.showCodes(ctx, codes) })
}

func (r *round) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

func (r *round) on() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began
}

func (s *Session) showCodes(ctx context.Context, codes []string) {
	lives := firstCodeLives
	for _, code := range codes {
		s.emit(protocol.QrIssued{Type: "qr_issued", Code: code, ExpiresMs: time.Now().Add(lives).UnixMilli()})
		select {
		case <-ctx.Done():
			return
		case <-time.After(lives):
			if ctx.Err() != nil { // both at once: a phone has paired
				return
			}
		}
		lives = laterCodeLives
	}
	s.end(protocol.Ended{Type: "pairing_ended", Reason: "timeout"})
}

// PhoneCode asks for a pairing code for a number, while a round of QR codes is on.
func (s *Session) PhoneCode(ctx context.Context, phone string) (string, error) {
	if s.client.Store.ID != nil || !s.round.on() {
		return "", protocol.Errorf(protocol.Refused, "no round of QR codes")
	}
	code, err := s.client.PairPhone(ctx, phone, true, whatsmeow.PairClientChrome, "Chrome (Linux)")
	if err != nil {
		return "", failure(err)
	}
	return code, nil
}
