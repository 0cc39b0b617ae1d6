package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"

	"tomada/machine/internal/protocol"
)

func outgoing(id string) protocol.Outgoing {
	return protocol.Outgoing{WaID: id, Chat: "5544999999999@s.whatsapp.net", Raw: []byte("\n\x02oi")}
}

func failures(t *testing.T, told *host) (all []protocol.SendFailed) {
	t.Helper()
	for _, event := range told.events() {
		all = append(all, event.(protocol.SendFailed))
	}
	return all
}

// What is closed gives back every send it took, once each, in their order, and takes no more.
func TestCloseGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		s.own(s.sends.work)
		const count = 100
		for i := range count {
			if i == 1 {
				synctest.Wait() // the first one failed; the others come in the pause after it
			}
			if err := s.Send(outgoing(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		s.Close() // harmless
		got := failures(t, told)
		if len(got) != count {
			t.Fatalf("%d outcomes", len(got))
		}
		for i, one := range got {
			if one.WaID != fmt.Sprint(i) || one.Kind != protocol.Retry {
				t.Fatalf("outcome %d: %+v", i, one)
			}
		}
		if err := s.Send(outgoing("late")); err == nil {
			t.Error("it takes one more")
		}
		if len(s.sends.open) != 0 {
			t.Errorf("%d are kept", len(s.sends.open))
		}
	})
}

// While not connected, sends come back in their order, all that wait with the first, and then there is a pause: nothing
// goes round at full speed. An ended session does the same until it is closed.
func TestNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		for i := range 3 {
			_ = s.Send(outgoing(fmt.Sprint(i)))
		}
		s.own(s.sends.work)
		synctest.Wait()
		_ = s.Send(outgoing("3"))
		synctest.Wait()
		if got := failures(t, told); len(got) != 3 || got[0].WaID != "0" || got[2].WaID != "2" || got[2].Kind != protocol.Retry {
			t.Fatalf("at once: %+v", got)
		}
		s.cancel(errClosed)
		s.loggedIn.Store(true) // as it may still be
		jid := types.NewADJID("5511", 0, 1)
		s.client.Store.ID, s.client.Store.LIDs = &jid, nil // a call of whatsmeow would panic
		time.Sleep(retryPause)
		synctest.Wait()
		if got := failures(t, told); len(got) != 4 || got[3].Kind != protocol.Retry {
			t.Errorf("after the pause: %+v", got)
		}
		s.Close()
	})
}

// There is a bound to what waits.
func TestTooManySends(t *testing.T) {
	s, _ := opened(t)
	for i := range waitingMax {
		if err := s.Send(outgoing(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	var known *protocol.Error
	if err := s.Send(outgoing("one more")); !errors.As(err, &known) || known.Kind != protocol.Retry {
		t.Errorf("got %v", err)
	}
}

// What is no message, goes nowhere, or makes the engine panic is refused, and the session lives on.
func TestRefusedSends(t *testing.T) {
	s, _ := opened(t)
	jid := types.NewADJID("5511", 0, 1)
	s.client.Store.ID = &jid
	s.loggedIn.Store(true)
	s.client.Store.LIDs = nil // the next call of whatsmeow panics
	for name, message := range map[string]protocol.Outgoing{
		"nowhere": {WaID: "A"}, "no message": {WaID: "A", Chat: "1@s.whatsapp.net", Raw: []byte{0xff}}, "panics": outgoing("A"),
	} {
		got := s.sends.send(message)
		if failed, ok := got.(protocol.SendFailed); !ok || failed.Kind != protocol.Refused || failed.WaID != "A" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A receipt that overtakes the outcome of its send is told after it; one for a message that is not under way waits for
// nothing, and none waits for ever.
func TestAReceiptWaitsForItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := opened(t)
		_ = s.Send(outgoing("A"))
		begun := time.Now()
		s.handle(&events.Receipt{MessageIDs: []string{"B"}})
		if time.Since(begun) != 0 || len(told.events()) != 1 {
			t.Fatalf("it waited %v", time.Since(begun))
		}
		go s.handle(&events.Receipt{MessageIDs: []string{"A"}})
		synctest.Wait()
		s.sends.settle("A", protocol.Sent{Type: "sent", WaID: "A"})
		synctest.Wait()
		got := told.events()
		if _, sent := got[1].(protocol.Sent); len(got) != 3 || !sent {
			t.Fatalf("told %+v", got)
		}
		_ = s.Send(outgoing("C"))
		s.handle(&events.Receipt{MessageIDs: []string{"C"}})
		if len(told.events()) != 4 || time.Since(begun) != outcomeWait {
			t.Errorf("after %v: %+v", time.Since(begun), told.events())
		}
	})
}

// What an error means for whoever gave the message: only what surely did not leave may be called unsent.
func TestFailure(t *testing.T) {
	for _, one := range []struct {
		err  error
		kind protocol.Kind
		code int
	}{
		{whatsmeow.ErrNotConnected, protocol.Retry, 0},
		{whatsmeow.ErrNotLoggedIn, protocol.Retry, 0},
		{fmt.Errorf("failed to get group members: %w", whatsmeow.ErrNotConnected), protocol.Retry, 0},
		{whatsmeow.ErrIQRateOverLimit, protocol.Retry, 429},
		{whatsmeow.ErrIQServiceUnavailable, protocol.Retry, 503},
		{fmt.Errorf("%w 463", whatsmeow.ErrServerReturnedError), protocol.Refused, 463},
		{fmt.Errorf("no LID found for 55@s.whatsapp.net from server"), protocol.Refused, 404},
		{whatsmeow.ErrIQForbidden, protocol.Refused, 403},
		{whatsmeow.ErrUnknownServer, protocol.Refused, 0},
		{whatsmeow.ErrRecipientADJID, protocol.Refused, 0},
		{whatsmeow.ErrBroadcastListUnsupported, protocol.Refused, 0},
		{fmt.Errorf("%w (got 1 bytes)", socket.ErrFrameTooLarge), protocol.Refused, 0},
		{whatsmeow.ErrMessageTimedOut, protocol.Unknown, 0},
		{whatsmeow.ErrIQTimedOut, protocol.Unknown, 0},
		{&whatsmeow.DisconnectedError{Action: "message send"}, protocol.Unknown, 0},
		{&whatsmeow.IQError{}, protocol.Unknown, 0},
		{context.DeadlineExceeded, protocol.Unknown, 0},
		{context.Canceled, protocol.Unknown, 0},
		{errors.New("something new"), protocol.Unknown, 0},
		{protocol.Errorf(protocol.Retry, "ours"), protocol.Retry, 0},
	} {
		if got := failure(one.err); got.Kind != one.kind || got.Code != one.code || got.Words == "" {
			t.Errorf("%v: %+v", one.err, got)
		}
	}
}

// Extra nodes go out as they were given.
func TestNodes(t *testing.T) {
	got := nodesOf([]protocol.Node{{Tag: "a", Attrs: map[string]string{"x": "1"}, Content: []protocol.Node{{Tag: "b"}}}})
	if want := `<a x="1"><b/></a>`; len(got) != 1 || strings.Join(strings.Fields(got[0].String()), " ") != want {
		t.Errorf("got %v", got)
	}
}
