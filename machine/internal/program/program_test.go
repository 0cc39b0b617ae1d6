package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"
)

func run(out *bytes.Buffer, arguments ...string) (int, string) {
	var trouble bytes.Buffer
	status := Run(flag.NewFlagSet("tomada-machine", flag.ContinueOnError), arguments, &Network{}, out, &trouble)
	return status, trouble.String()
}

// hello is one line of JSON, as the protocol has it.
func TestHello(t *testing.T) {
	var out bytes.Buffer
	if status, trouble := run(&out, "hello"); status != 0 {
		t.Fatalf("status %d: %s", status, trouble)
	}
	var got Hello
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != "hello" || got.Version != ProtocolVersion || got.PID == 0 || got.Traits == nil {
		t.Errorf("got %+v", got)
	}
	if strings.Count(out.String(), "\n") != 1 || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("not one line: %q", out.String())
	}
}

// What is no command ends with the status for wrong use, says how it is used, and writes nothing to the pipe.
func TestWrongUse(t *testing.T) {
	for _, arguments := range [][]string{nil, {"serve"}, {"hello", "there"}, {"--sandbox", "hello"}} {
		var out bytes.Buffer
		status, trouble := run(&out, arguments...)
		if status != exitUsage || !strings.Contains(trouble, "usage: tomada-machine") || out.Len() != 0 {
			t.Errorf("%q: status %d, %q, out %q", arguments, status, trouble, out.String())
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// An output that cannot be written is an error, not a success.
func TestOutputThatFails(t *testing.T) {
	for _, command := range []string{"hello", "descriptors", "--version"} {
		var trouble bytes.Buffer
		status := Run(flag.NewFlagSet("tomada-machine", flag.ContinueOnError), []string{command}, &Network{}, full{}, &trouble)
		if status != exitIO || !strings.Contains(trouble.String(), "no space left") {
			t.Errorf("%s: status %d, %q", command, status, trouble.String())
		}
	}
}
