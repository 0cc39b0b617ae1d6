// Package program is the command line of a machine: what both mains share.
//
// There are two of them. tomada-machine serves WhatsApp; tomada-machine-sandbox serves the simulated network. They
// differ in the Network that they pass in and in nothing else, so that the production program has no switch by which it
// could be led elsewhere.
package program

import (
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"

	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/descriptors"
)

// ProtocolVersion is the version of docs/machine-protocol.md that this program speaks.
const ProtocolVersion = 2

const whatsmeow = "go.mau.fi/whatsmeow"

// Exit statuses, as in sysexits.h.
const (
	exitOK    = 0
	exitIO    = 74
	exitUsage = 64
)

// Network says where the sessions connect to. The zero value is WhatsApp.
type Network struct {
	Authorities *x509.CertPool // for TLS; nil: the system's
	Proxy       *url.URL       // for sessions that have none of their own; nil: the environment's
}

// Hello is the first line that a machine says.
type Hello struct {
	Type    string   `json:"type"`
	Version int      `json:"version"`
	PID     int      `json:"pid"`
	Engine  string   `json:"engine"`
	Traits  []string `json:"traits"`
}

// NewHello describes the running program.
func NewHello() Hello {
	return Hello{Type: "hello", Version: ProtocolVersion, PID: os.Getpid(), Engine: Engine(), Traits: []string{}}
}

// Engine names the library that speaks to WhatsApp, and its version.
func Engine() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == whatsmeow {
				return "whatsmeow " + module.Version
			}
		}
	}
	return "whatsmeow (unknown version)"
}

// Run carries out one command line and returns the exit status. The flags that a main has of its own fill the Network,
// which is read after they are parsed: by the sessions, once this program has some.
func Run(flags *flag.FlagSet, arguments []string, _ *Network, out, errors io.Writer) int {
	flags.SetOutput(errors)
	flags.Usage = func() {
		fmt.Fprintf(errors, "usage: %s [flags] hello | descriptors\n", flags.Name())
		flags.PrintDefaults()
	}
	version := flags.Bool("version", false, "print the versions of this program and end")
	if err := flags.Parse(arguments); err != nil {
		return exitUsage
	}
	var err error
	switch command := flags.Arg(0); {
	case *version:
		_, err = fmt.Fprintf(out, "%s, protocol %d, %s, %s\n", flags.Name(), ProtocolVersion, Engine(), runtime.Version())
	case command == "hello" && flags.NArg() == 1:
		err = json.NewEncoder(out).Encode(NewHello())
	case command == "descriptors" && flags.NArg() == 1:
		err = printDescriptors(out)
	default:
		flags.Usage()
		return exitUsage
	}
	if err != nil {
		fmt.Fprintf(errors, "%s: %v\n", flags.Name(), err)
		return exitIO
	}
	return exitOK
}

func printDescriptors(out io.Writer) error {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(descriptors.Set())
	if err != nil {
		return err
	}
	_, err = out.Write(encoded)
	return err
}
