// Command tomada-machine hosts sessions at WhatsApp. It knows no other network.
package main

import (
	"flag"
	"os"

	"tomada/machine/internal/program"
)

func main() {
	flags := flag.NewFlagSet("tomada-machine", flag.ContinueOnError)
	os.Exit(program.Run(flags, os.Args[1:], &program.Network{}, os.Stdout, os.Stderr))
}
