package session

import (
	"fmt"
	"log/slog"

	waLog "go.mau.fi/whatsmeow/util/log"
)

// quiet passes whatsmeow's errors on as debugging notes: they name people and messages, and what of them concerns the
// operator we say ourselves.
type quiet struct{ log *slog.Logger }

var _ waLog.Logger = quiet{}

func (q quiet) Errorf(format string, arguments ...any) {
	q.log.Debug("whatsmeow", "level_there", "error", "text", fmt.Sprintf(format, arguments...))
}

func (q quiet) Warnf(format string, arguments ...any) {
	q.log.Debug("whatsmeow", "level_there", "warning", "text", fmt.Sprintf(format, arguments...))
}

func (quiet) Infof(string, ...any)      {}
func (quiet) Debugf(string, ...any)     {}
func (q quiet) Sub(string) waLog.Logger { return q }
