package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func samples(t *testing.T, name string) [][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
}

// strict decodes what it knows all fields of.
func strict(t *testing.T, raw []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
}

func typeOf(t *testing.T, raw []byte) string {
	t.Helper()
	var typed struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &typed); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return typed.Type
}

// Every sample of the host is understood to its last field, and there is one of every command.
func TestWhatTheHostSays(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range samples(t, "host_to_machine.jsonl") {
		message, err := Decode(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		strict(t, line, &FromHost{})
		if message.Type == "acknowledge" {
			seen["acknowledge"] = true
			if !slices.Equal(message.Numbers, []int64{1, 2, 7}) {
				t.Errorf("numbers %v", message.Numbers)
			}
			continue
		}
		var command Command
		strict(t, message.Command, &command)
		seen[command.Type] = true
	}
	want := []string{"acknowledge", "ask", "close_session", "logout", "open_session", "probe", "request_phone_code", "send"}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
		t.Errorf("samples of %v, want %v", got, want)
	}
}

// What a send carries arrives as it was meant: bytes, nodes within nodes, seconds.
func TestASend(t *testing.T) {
	var command Command
	message, err := Decode(samples(t, "host_to_machine.jsonl")[6])
	if err != nil {
		t.Fatal(err)
	}
	strict(t, message.Command, &command)
	want := &Outgoing{
		WaID: "3EB0C431C26A1916E07B", Chat: "5544999999999@s.whatsapp.net", ShownAs: "120363019502650977@g.us",
		Raw: []byte("\n\x02oi"), TypingS: 2.5,
		Nodes: []Node{{
			Tag: "biz", Attrs: map[string]string{"native_flow_name": "order"},
			Content: []Node{{Tag: "flow", Attrs: map[string]string{"v": "1"}}},
		}},
	}
	if !reflect.DeepEqual(command.Message, want) {
		t.Errorf("got %+v, want %+v", command.Message, want)
	}
}

var events = map[string]func() any{
	"qr_issued": func() any { return &QrIssued{} }, "paired": func() any { return &Account{} },
	"connected": func() any { return &Account{} }, "named": func() any { return &Named{} },
	"disconnected": func() any { return &Ended{} }, "pairing_ended": func() any { return &Ended{} },
	"logged_out": func() any { return &Ended{} }, "replaced": func() any { return &Ended{} },
	"banned": func() any { return &Ended{} }, "outdated": func() any { return &Ended{} },
	"connect_failed": func() any { return &Ended{} }, "message": func() any { return &Message{} },
	"undecryptable": func() any { return &Undecryptable{} }, "receipt": func() any { return &Receipt{} },
	"presence": func() any { return &Presence{} }, "sent": func() any { return &Sent{} },
	"send_failed": func() any { return &SendFailed{} },
}

// Every sample of the machine is what the structs write, no field more or less, and there is one of every event.
func TestWhatTheMachineSays(t *testing.T) {
	missing := maps.Clone(events)
	for _, line := range samples(t, "machine_to_host.jsonl") {
		var value any
		switch kind := typeOf(t, line); kind {
		case "hello":
			value = &Hello{}
		case "ready":
			value = &Ready{}
		case "answer":
			value = &Answer{}
		case "happened":
			var raw json.RawMessage
			strict(t, line, &Happened{Event: &raw})
			inner := typeOf(t, raw)
			if events[inner] == nil {
				t.Fatalf("no struct for event %q", inner)
			}
			delete(missing, inner)
			value = &Happened{Event: events[inner]()}
		default:
			t.Fatalf("no struct for %q", kind)
		}
		strict(t, line, value)
		written, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, written, line) {
			t.Errorf("read and written it is\n%s\nnot\n%s", written, line)
		}
	}
	if len(missing) > 0 {
		t.Errorf("no sample of %v", slices.Collect(maps.Keys(missing)))
	}
}

// sameJSON compares what two lines say: an answer's value of any shape comes back with its keys in another order.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var left, right any
	if err := errors.Join(json.Unmarshal(a, &left), json.Unmarshal(b, &right)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(left, right)
}

// What is not of the protocol is nonsense; what may be of a later one is not: fields and commands that are unknown.
func TestNonsense(t *testing.T) {
	for _, line := range []string{``, `[]`, `7`, `{`, `{}`, `{"type":"hello"}`, `{"type":"request","id":"one"}`} {
		if _, err := Decode([]byte(line)); !errors.Is(err, ErrNonsense) {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, line := range []string{
		`{"type":"request","id":1,"command":{"type":"fly"},"later":1}`, `{"type":"acknowledge","numbers":[]}`,
	} {
		if _, err := Decode([]byte(line)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// An error says its words and nothing else.
func TestError(t *testing.T) {
	err := Errorf(Retry, "the session %s", "waits")
	if err.Error() != "the session waits" || err.Kind != Retry || strings.Contains(err.Error(), "retry") {
		t.Errorf("got %+v", err)
	}
}
