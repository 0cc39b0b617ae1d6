// Package pipe carries lines between host and machine.
//
// A line out is written by whoever has something to say, under a lock: a host that does not read holds up the whole
// machine, and through it WhatsApp, which is what it should do. A line in is bounded, so that a host gone wrong cannot
// take the machine's memory.
package pipe

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"tomada/machine/internal/protocol"
)

// ErrTooLong is what a line beyond protocol.LineBytesMax gives.
var ErrTooLong = errors.New("a line longer than the protocol allows")

// Writer writes lines, each in one call.
type Writer struct {
	mu  sync.Mutex
	out io.Writer
}

// NewWriter writes to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write encodes a value as one line. It fails with ErrTooLong before anything was written, or as the pipe fails.
func (w *Writer) Write(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if len(line) >= protocol.LineBytesMax {
		return ErrTooLong
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.out.Write(append(line, '\n'))
	return err
}

// Reader reads lines.
type Reader struct{ in *bufio.Reader }

// NewReader reads from in.
func NewReader(in io.Reader) *Reader {
	return &Reader{bufio.NewReaderSize(in, 64<<10)}
}

// Next is the next whole line without its end. io.EOF at the end of input: a line that was cut off there counts for
// nothing, since whoever wrote it did not finish it.
func (r *Reader) Next() ([]byte, error) {
	var line []byte
	for {
		part, err := r.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > protocol.LineBytesMax:
			return nil, ErrTooLong
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return nil, err
		}
		return line[:len(line)-1], nil
	}
}
