// Package session is one instance's session: a client of whatsmeow that is kept connected until the host closes it.
//
// What acknowledges what. WhatsApp is told that a message or receipt arrived when the host has committed it, never
// before (receive.go). Three settings of whatsmeow and one rule of ours make it so: SynchronousAck (the acknowledgement
// follows the handlers), the buffer of decrypted events (a message that was decrypted and not committed is read again
// from the store when WhatsApp brings it again), a handler that answers false when its event is not safe, and a context
// per connection that is cancelled before an error of the store is seen (package store), since whatsmeow acknowledges
// whatever it could not decrypt unless that context is over.
//
// The goroutines of a session, each ended by its context: keep (connects, and connects again), work (sends, one at a
// time), a round of QR codes, and whatsmeow's own, which call handle.
//
// A connection that breaks is made again here for as long as the host leaves the session open; the host, which knows
// all sessions, closes it after a moment and opens it when it is its turn (src/tomada/machines/backoff.py).
package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	"go.mau.fi/whatsmeow/proto/waWa6"
	wastore "go.mau.fi/whatsmeow/store"
	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/protocol"
	"tomada/machine/internal/store"
)

// Host is what a session tells its news.
type Host interface {
	// Emit tells an event that nobody waits for.
	Emit(instanceID string, event any)
	// Deliver tells an event and waits until the host has committed it; an error says that it may not have.
	Deliver(ctx context.Context, instanceID string, event any) error
	// Spill keeps bytes that are too many for a line in a file, and gives its path.
	Spill(data []byte) (string, error)
}

// Needs is what all sessions of a machine share.
type Needs struct {
	Host  Host
	Store *store.Store
	HTTP  func(proxyURL string) (*http.Client, error)
	Log   *slog.Logger
}

// Session is one open session.
type Session struct {
	needs  Needs
	spec   protocol.Spec
	log    *slog.Logger
	client *whatsmeow.Client
	names  *names
	sends  *sends

	ctx    context.Context
	cancel context.CancelCauseFunc
	owning sync.Mutex     // held to begin a goroutine, and to end taking them
	closed bool           // guarded by owning
	owned  sync.WaitGroup // the goroutines of this session

	conn atomic.Pointer[connection]
	down chan string // why the connection has to be made again

	telling  sync.Mutex  // held to tell an event of the session's life, so that nothing follows its end
	over     atomic.Bool // the host was told the end: nothing more is told
	leaving  atomic.Bool // the host asked to log out: that it happened is its answer, no event
	unlinked atomic.Bool // WhatsApp said that the device is not linked any more

	round    round
	ownName  atomic.Pointer[string]
	loggedIn atomic.Bool                   // Connected was told, and no end of that connection since
	resumed  atomic.Bool                   // connected again since the first time
	pairing  atomic.Pointer[chan struct{}] // closed when the pairing under way has come to its end
}

// errClosed ends a session that the host closed.
var errClosed = errors.New("the session was closed")

// Open finds the device under the spec's key and connects, or begins a round of QR codes if the host asks for one.
//
// Without a device, and not asked to pair, it answers an empty Device and opens nothing. An error of the store is an
// error, never "no device".
func Open(ctx context.Context, spec protocol.Spec, needs Needs) (*Session, protocol.Opened, error) {
	device, err := needs.Store.Device(ctx, spec.StoreKey)
	if err != nil {
		needs.Log.Error("session_store_failed", "instance", spec.InstanceID, "error", err.Error())
		return nil, protocol.Opened{}, protocol.Errorf(protocol.Retry, "the session store cannot be read now")
	}
	if device == nil && !spec.Pair {
		return nil, protocol.Opened{}, nil
	}
	opened := protocol.Opened{}
	if device != nil {
		opened.Device = device.GetJID().String()
	} else {
		device = needs.Store.NewDevice(spec.StoreKey)
	}
	session, err := newSession(spec, needs, device)
	if err != nil {
		return nil, opened, err
	}
	if err := session.connect(); err != nil {
		session.cancel(err)
		session.Close()
		return nil, opened, protocol.Errorf(protocol.Retry, "%v", err)
	}
	session.own(session.keep)
	session.own(session.sends.work)
	return session, opened, nil
}

func newSession(spec protocol.Spec, needs Needs, device *wastore.Device) (*Session, error) {
	httpClient, err := needs.HTTP(spec.ProxyURL)
	if err != nil {
		return nil, protocol.Errorf(protocol.Refused, "the proxy cannot be used: %v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &Session{
		needs: needs, spec: spec, log: needs.Log.With("instance", spec.InstanceID),
		ctx: ctx, cancel: cancel, down: make(chan string, 1),
	}
	client := whatsmeow.NewClient(device, quiet{s})
	client.SynchronousAck = true
	client.EnableDecryptedEventBuffer = true
	client.UseRetryMessageStore = true
	client.EnableAutoReconnect = false // keep does it, with a context of its own for each connection
	client.DisableLoginAutoReconnect = true
	client.ManualHistorySyncDownload = true // history.go does it
	client.DisableManualHistorySyncReceipt = true
	client.BackgroundEventCtx = ctx
	client.PrePairCallback = s.pairBegins
	client.SetWebsocketHTTPClient(httpClient)
	client.SetPreLoginHTTPClient(httpClient)
	client.SetMediaHTTPClient(httpClient)
	client.GetClientPayload = func() *waWa6.ClientPayload { return payloadOf(device, spec.SessionName) }
	client.AddEventHandlerWithSuccessStatus(s.handle)
	s.client = client
	s.names = newNames(s)
	s.sends = newSends(s)
	return s, nil
}

// payloadOf is the device's own payload with this session's name in it: whatsmeow's is one for the whole process.
func payloadOf(device *wastore.Device, name string) *waWa6.ClientPayload {
	payload := device.GetClientPayload()
	data := payload.GetDevicePairingData()
	if data == nil {
		return payload
	}
	properties := proto.Clone(wastore.DeviceProps).(*waCompanionReg.DeviceProps)
	properties.Os = proto.String(name)
	if encoded, err := proto.Marshal(properties); err == nil {
		data.DeviceProps = encoded
	}
	return payload
}

// own runs a function as a goroutine that Close waits for; not at all once the session is closed.
func (s *Session) own(run func()) {
	s.owning.Lock()
	defer s.owning.Unlock()
	if s.closed {
		return
	}
	s.owned.Add(1)
	go func() {
		defer s.owned.Done()
		run()
	}()
}

// Close ends the session: the send under way is finished if that takes a moment only, and those that wait are given
// back. Its keys stay.
func (s *Session) Close() {
	s.telling.Lock()
	s.over.Store(true)
	s.telling.Unlock()
	s.sends.close()
	s.cancel(errClosed)
	s.client.Disconnect()
	s.owning.Lock()
	s.closed = true
	s.owning.Unlock()
	s.owned.Wait()
}

// Logout unlinks the device at WhatsApp and forgets its keys. The caller closes the session afterwards.
func (s *Session) Logout(ctx context.Context) error {
	if !s.online() {
		return protocol.Errorf(protocol.Retry, "not connected")
	}
	s.leaving.Store(true)
	var fault atomic.Pointer[error]
	err := s.client.Logout(store.WithFault(ctx, func(err error) { fault.CompareAndSwap(nil, &err) }))
	switch {
	case err == nil, s.unlinked.Load(): // the second: WhatsApp unlinked the device before it answered
		return nil
	case fault.Load() != nil: // WhatsApp was told first; it refuses the keys that stay here at the next connection
		s.log.Error("keys_not_deleted", "error", err.Error())
		return nil
	}
	s.leaving.Store(false)
	return failure(err)
}

// online is whether WhatsApp let us in on the present connection. whatsmeow's IsLoggedIn is not that: it stays true
// after a connection broke.
func (s *Session) online() bool { return s.loggedIn.Load() && s.client.IsConnected() }

// Alive asks WhatsApp's server something cheap: keepalives prove less, a session can be deaf and answer them.
func (s *Session) Alive(ctx context.Context) bool {
	if !s.online() {
		return false
	}
	_, err := s.client.GetBlocklist(ctx)
	var refused *whatsmeow.IQError
	return err == nil || errors.As(err, &refused)
}

func (s *Session) emit(event any) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.over.Load() {
		s.needs.Host.Emit(s.spec.InstanceID, event)
	}
}

// end tells the last event of the session; nothing that comes afterwards changes it.
func (s *Session) end(event protocol.Ended) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.over.CompareAndSwap(false, true) {
		return
	}
	if event.Type != "logged_out" || !s.leaving.Load() {
		s.needs.Host.Emit(s.spec.InstanceID, event)
	}
	s.cancel(errors.New("the session ended: " + event.Type))
	s.own(s.client.Disconnect) // not here: a handler of whatsmeow's may be what ends it
}

// pause waits; false if the session ended first.
func (s *Session) pause(wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-s.ctx.Done():
		return false
	}
}
