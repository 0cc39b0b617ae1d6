package program

import (
	"net/http"
	"strings"
	"testing"
)

// A proxy is used as it is given, one client for all sessions behind it; what is none is refused without showing its
// password.
func TestProxies(t *testing.T) {
	given := &clients{network: &Network{}}
	for _, address := range []string{"http://p:1", "https://p:1", "socks5://user:hunter2@p:1"} {
		client, err := given.of(address)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		used, err := client.Transport.(*http.Transport).Proxy(&http.Request{})
		if err != nil || used.String() != address {
			t.Errorf("%s: %v, %v", address, used, err)
		}
		if again, _ := given.of(address); again != client {
			t.Errorf("%s: another client", address)
		}
	}
	for _, address := range []string{"p:1", "//user:hunter2@p", "ht://user:hunter2@p", "ftp://p", "http://", "http://user:hunter2@p:port"} {
		if _, err := given.of(address); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// The version that is claimed is one, or it is refused.
func TestVersions(t *testing.T) {
	for _, text := range []string{"x", "2.3000", "0.0.0", "2.3000.x"} {
		if err := setVersion(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if err := setVersion(""); err != nil {
		t.Error(err)
	}
}
