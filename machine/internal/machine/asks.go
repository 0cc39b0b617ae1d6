package machine

import (
	"context"
	"encoding/json"

	"tomada/machine/internal/session"
)

// asks is the table of questions: a name, and the function that answers it. A new one is a row here, a function in
// package session, and a reply struct in the host.
var asks = map[string]func(context.Context, *session.Session, json.RawMessage) (any, error){
	"group_info":  answered((*session.Session).GroupInfo),
	"numbers":     answered((*session.Session).Numbers),
	"on_whatsapp": answered((*session.Session).OnWhatsApp),
}

// answered decodes a question's arguments.
func answered[A any](
	function func(*session.Session, context.Context, A) (any, error),
) func(context.Context, *session.Session, json.RawMessage) (any, error) {
	return func(ctx context.Context, open *session.Session, raw json.RawMessage) (any, error) {
		var arguments A
		if err := json.Unmarshal(raw, &arguments); err != nil {
			return nil, badArguments
		}
		return function(open, ctx, arguments)
	}
}
