// Command tomada-machine-sandbox hosts sessions at a simulated network: the same machine as tomada-machine, which
// trusts the root key and the certificate authority that it is given, and goes through the proxy that it is given.
package main

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"net/url"
	"os"

	"go.mau.fi/whatsmeow"

	"tomada/machine/internal/program"
)

func main() {
	flags := flag.NewFlagSet("tomada-machine-sandbox", flag.ContinueOnError)
	var network program.Network
	flags.Func("noise-root", "`hex` of the root key of the transport's certificates", func(text string) error {
		key, err := hex.DecodeString(text)
		if err != nil || len(key) != 32 {
			return errors.New("a root key is 32 bytes in hex")
		}
		whatsmeow.WACertPubKey = [32]byte(key) // a variable of the whole program, in whatsmeow: only this main writes it
		return nil
	})
	flags.Func("ca", "`file` with the certificate authorities to trust", func(path string) error {
		pem, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		network.Authorities = x509.NewCertPool()
		if !network.Authorities.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in it")
		}
		return nil
	})
	flags.Func("proxy", "`url` of the proxy that leads to the simulated network", func(text string) (err error) {
		network.Proxy, err = url.Parse(text)
		return err
	})
	os.Exit(program.Run(flags, os.Args[1:], &network, os.Stdout, os.Stderr))
}
