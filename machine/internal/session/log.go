package session

import (
	"fmt"

	waBinary "go.mau.fi/whatsmeow/binary"
	waLog "go.mau.fi/whatsmeow/util/log"
)

// quiet passes whatsmeow's errors on as debugging notes: they name people and messages, and what of them concerns the
// operator we say ourselves.
//
// It also is where we see stanzas pass: whatsmeow notes each one under "Recv" before it queues it, in the goroutine
// that reads, and under "Send" before it writes it. There is no other place to hold reading back (inbox.go).
type quiet struct{ session *Session }

var _ waLog.Logger = quiet{}

func (q quiet) Errorf(format string, arguments ...any) {
	q.session.log.Debug("whatsmeow", "level_there", "error", "text", fmt.Sprintf(format, arguments...))
}

func (q quiet) Warnf(format string, arguments ...any) {
	q.session.log.Debug("whatsmeow", "level_there", "warning", "text", fmt.Sprintf(format, arguments...))
}

func (quiet) Infof(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}

func (q quiet) Sub(module string) waLog.Logger {
	switch module {
	case "Recv":
		return stanzas{q, q.session.came}
	case "Send":
		return stanzas{q, q.session.went}
	}
	return q
}

// stanzas calls seen for each stanza that is noted.
type stanzas struct {
	quiet
	seen func(*waBinary.Node)
}

func (s stanzas) Debugf(_ string, arguments ...any) {
	if len(arguments) == 1 {
		if node, ok := arguments[0].(*waBinary.Node); ok {
			s.seen(node)
		}
	}
}
