// Command tomada-machine-sandbox hosts sessions at a simulated network: the same machine as tomada-machine, which
// trusts the root key and the certificate authority that it is given, and goes through the proxy that it is given.
package main

import (
	"flag"
	"os"

	"tomada/machine/internal/program"
	"tomada/machine/internal/sandbox"
)

func main() {
	flags := flag.NewFlagSet("tomada-machine-sandbox", flag.ContinueOnError)
	var network program.Network
	sandbox.Flags(flags, &network)
	os.Exit(program.Run(flags, os.Args[1:], &network, os.Stdout, os.Stderr))
}
