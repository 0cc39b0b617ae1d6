// Package sandbox leads a program to a simulated network. Production's program does not import it.
package sandbox

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

// Flags defines the flags that name the network: its root key and authority, to be trusted, and the proxy to it
// (src/tomada/sandbox/launch.py gives them).
func Flags(flags *flag.FlagSet, network *program.Network) {
	flags.Func("noise-root", "`hex` of the root key of the transport's certificates", func(text string) error {
		key, err := hex.DecodeString(text)
		if err != nil || len(key) != 32 {
			return errors.New("a root key is 32 bytes in hex")
		}
		whatsmeow.WACertPubKey = [32]byte(key) // a variable of the whole program, in whatsmeow: written here only
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
}
