package program

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent asks for SIGTERM when the host dies; the end of standard input says the same.
func dieWithParent() { _ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0) }
