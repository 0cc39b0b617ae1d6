package program

import (
	"os"

	signal "go.mau.fi/libsignal/logger"
)

// keepStdout keeps standard output for the protocol: one foreign line there, and the host takes this machine for one that
// speaks nonsense and kills it. Whoever prints in this process prints to the log; libsignal, which would print a line for
// each message that it cannot decrypt, is silent, since whatsmeow tells us of those.
func keepStdout() {
	os.Stdout = os.Stderr
	signal.Logger = silent{}
}

type silent struct{}

func (silent) Debug(string, string)   {}
func (silent) Info(string, string)    {}
func (silent) Warning(string, string) {}
func (silent) Error(string, string)   {}
func (silent) Configure(string)       {}
