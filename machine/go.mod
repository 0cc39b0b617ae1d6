module tomada/machine

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	go.mau.fi/libsignal v0.2.2
	// Pinned by commit, and never "@latest": whatsmeow has no releases, and what a module proxy calls its latest version may be
	// a year old, with a WhatsApp version long refused and no passkey pairing. A newer one is named by the time (UTC) and the
	// first twelve digits of a commit of its repository: go get go.mau.fi/whatsmeow@v0.0.0-YYYYMMDDhhmmss-CCCCCCCCCCCC
	// && go mod tidy. It is tried by `make test`: the conformance tests of the machine, and the product against the sandbox.
	go.mau.fi/whatsmeow v0.0.0-20260921121126-35ae40906e74
	golang.org/x/sys v0.49.0
	google.golang.org/protobuf v1.36.12
)

require go.mau.fi/util v0.10.1

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/beeper/argo-go v1.1.2 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/elliotchance/orderedmap/v3 v3.1.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/petermattis/goid v0.0.0-20260820044319-269ab09b5261 // indirect
	github.com/rs/zerolog v1.35.1 // indirect
	github.com/vektah/gqlparser/v2 v2.5.27 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/exp v0.0.0-20260908205506-85c1c2202aba // indirect
	golang.org/x/net v0.59.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/text v0.42.0 // indirect
)
