//go:build requirements

// Package machine is never built. It names what go.mod requires before the code that needs it is there, so that
// `go mod tidy` keeps it; an import leaves this file when it stands in the machine itself.
package machine

import (
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "go.mau.fi/libsignal/ecc"
	_ "go.mau.fi/whatsmeow"
	_ "go.mau.fi/whatsmeow/store/sqlstore"
	_ "golang.org/x/sys/unix"
)
