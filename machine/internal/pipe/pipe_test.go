package pipe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"tomada/machine/internal/protocol"
)

// Lines come whole and in order, whatever the sizes in which the pipe brings them; what was cut off at the end of input
// counts for nothing.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	in := "one\n\n" + long + "\ncut o"
	for _, source := range []io.Reader{strings.NewReader(in), oneByte{strings.NewReader(in)}} {
		reader := NewReader(source)
		for _, want := range []string{"one", "", long} {
			if got, err := reader.Next(); err != nil || string(got) != want {
				t.Fatalf("got %.20q and %v, want %.20q", got, err, want)
			}
		}
		if got, err := reader.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("got %q and %v at the end", got, err)
		}
	}
}

type oneByte struct{ io.Reader }

func (o oneByte) Read(into []byte) (int, error) { return o.Reader.Read(into[:1]) }

// A line may have a mebibyte with its end, and not a byte more; what is longer is refused before all of it was read.
func TestTheLongestLine(t *testing.T) {
	longest := strings.Repeat("x", protocol.LineBytesMax-1)
	if got, err := NewReader(strings.NewReader(longest + "\n")).Next(); err != nil || len(got) != len(longest) {
		t.Errorf("the longest line: %d bytes, %v", len(got), err)
	}
	if _, err := NewReader(strings.NewReader(longest + "x\n")).Next(); !errors.Is(err, ErrTooLong) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := NewReader(endless{}).Next(); !errors.Is(err, ErrTooLong) {
		t.Errorf("no end at all: %v", err)
	}
}

type endless struct{}

func (endless) Read(into []byte) (int, error) {
	return copy(into, bytes.Repeat([]byte("x"), len(into))), nil
}

// The writer keeps the same bound, and writes nothing of a line that is too long.
func TestWritingTheLongestLine(t *testing.T) {
	var out bytes.Buffer
	writer := NewWriter(&out)
	fits := strings.Repeat("x", protocol.LineBytesMax-3) // and two quotes and the end of the line
	if err := writer.Write(fits); err != nil || out.Len() != protocol.LineBytesMax {
		t.Fatalf("%v, %d bytes", err, out.Len())
	}
	out.Reset()
	if err := writer.Write(fits + "x"); !errors.Is(err, ErrTooLong) || out.Len() != 0 {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}

// Lines of many goroutines do not mix, and each is one write.
func TestManyWriters(t *testing.T) {
	var out writes
	writer := NewWriter(&out)
	var all sync.WaitGroup
	for number := range 50 {
		all.Go(func() { _ = writer.Write(strings.Repeat(fmt.Sprint(number%10), 5000)) })
	}
	all.Wait()
	if len(out.lines) != 50 {
		t.Fatalf("%d writes", len(out.lines))
	}
	for _, line := range out.lines {
		if len(line) != 5003 || strings.Count(line, line[1:2]) != 5000 {
			t.Errorf("a line is mixed: %.20q", line)
		}
	}
}

type writes struct{ lines []string }

func (w *writes) Write(line []byte) (int, error) {
	w.lines = append(w.lines, string(line))
	return len(line), nil
}

// A pipe that breaks is an error of the write.
func TestABrokenPipe(t *testing.T) {
	read, write := io.Pipe()
	_ = read.Close()
	if err := NewWriter(write).Write(1); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}
