//go:build !linux

package program

// dieWithParent is left to the end of standard input.
func dieWithParent() {}
