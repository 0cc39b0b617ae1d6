// Package protocol is the language of host and machine: version 2, one JSON object a line, both ways.
//
// docs/machine-protocol.md is the specification. These structs are the machine's side of it; the host's are in
// src/tomada/machines/protocol.py, and both are tested against the samples in testdata.
//
// The protocol carries a message as the bytes of WhatsApp's own protobuf beside an envelope (who, where, when, which
// id). It knows no kind of message: a new kind changes nothing here.
package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Version of the protocol. A host that speaks another one refuses this machine in words.
const Version = 2

// LineBytesMax bounds a line in either direction. What may be longer travels as a file in the machine's folder.
const LineBytesMax = 1 << 20

// Traits that Hello names, so that a host can tell what this machine does without asking for its version.
var Traits = []string{"gated", "own_ids", "postgres_store"}

// Hello is the machine's first line.
type Hello struct {
	Type    string   `json:"type"`
	Version int      `json:"version"`
	Pid     int      `json:"pid"`
	Engine  string   `json:"engine"`
	Traits  []string `json:"traits"`
	Asks    []string `json:"asks"`
}

// Ready follows Hello when requests are welcome.
type Ready struct {
	Type string `json:"type"`
}

// Happened tells an event of a session. With a number it is told again, by WhatsApp itself, until the host has
// acknowledged that number.
type Happened struct {
	Type       string `json:"type"`
	InstanceID string `json:"instance_id"`
	Number     int64  `json:"number,omitempty"`
	Event      any    `json:"event"`
}

// Answer to the request with the same id: a value, or an error.
type Answer struct {
	Type  string `json:"type"`
	ID    int64  `json:"id"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
	Kind  Kind   `json:"kind,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// Kind says what an error means for whoever asked.
type Kind string

// The kinds of error.
const (
	Refused Kind = "refused" // nothing was done, and asking again changes nothing
	Retry   Kind = "retry"   // nothing was done, and not for the request's own fault: ask again later
	Unknown Kind = "unknown" // it may have taken effect
)

// Error is an error with its kind, and WhatsApp's own number for it where there is one.
type Error struct {
	Kind  Kind
	Code  int
	Words string
}

func (e *Error) Error() string { return e.Words }

// Errorf makes an Error without a code.
func Errorf(kind Kind, format string, arguments ...any) *Error {
	return &Error{Kind: kind, Words: fmt.Sprintf(format, arguments...)}
}

// FromHost is a line of the host: a request with a command, or an acknowledgement.
type FromHost struct {
	Type    string          `json:"type"`
	ID      int64           `json:"id"`
	Command json.RawMessage `json:"command"`
	Numbers []int64         `json:"numbers"`
}

// Command is what a request asks for; Type says which fields count.
type Command struct {
	Type       string          `json:"type"`
	InstanceID string          `json:"instance_id"`
	Spec       *Spec           `json:"spec"`
	Phone      string          `json:"phone"`
	Name       string          `json:"name"`
	Arguments  json.RawMessage `json:"arguments"`
	Message    *Outgoing       `json:"message"`
}

// Spec is all that is needed to open a session.
type Spec struct {
	InstanceID  string `json:"instance_id"`
	StoreKey    string `json:"store_key"`
	SessionName string `json:"session_name"`
	ProxyURL    string `json:"proxy_url"`
	Pair        bool   `json:"pair"`
}

// Opened answers open_session. Device is empty if the store holds none and a round of QR codes was not asked for.
type Opened struct {
	Device string `json:"device"`
}

// Outgoing is a message to send: its id is the host's, Raw the bytes of a waE2E.Message.
type Outgoing struct {
	WaID    string  `json:"wa_id"`
	Chat    string  `json:"chat"`
	ShownAs string  `json:"shown_as"`
	Raw     []byte  `json:"raw"`
	Nodes   []Node  `json:"nodes"`
	TypingS float64 `json:"typing_s"`
}

// Node is an extra part of a message's stanza, as the host gives it.
type Node struct {
	Tag     string            `json:"tag"`
	Attrs   map[string]string `json:"attrs"`
	Content []Node            `json:"content"`
}

// ErrNonsense is what a line that is not of the protocol gives.
var ErrNonsense = errors.New("a line that is not of the protocol")

// Decode reads a line of the host.
func Decode(line []byte) (FromHost, error) {
	var message FromHost
	if err := json.Unmarshal(line, &message); err != nil {
		return message, fmt.Errorf("%w: %v", ErrNonsense, err)
	}
	if message.Type != "request" && message.Type != "acknowledge" {
		return message, fmt.Errorf("%w: type %q", ErrNonsense, message.Type)
	}
	return message, nil
}
