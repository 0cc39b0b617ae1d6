package program

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	wastore "go.mau.fi/whatsmeow/store"

	"tomada/machine/internal/machine"
	"tomada/machine/internal/store"
)

// StoreVariable names the environment variable with the PostgreSQL address of the session store. Not a flag: everybody
// on the computer may read a command line.
const StoreVariable = "TOMADA_MACHINE_STORE"

const (
	predecessorWait = 60 * time.Second
	prepareTimeout  = 60 * time.Second
	memoryPercent   = 50 // of garbage beside what lives: sessions are many and small, and memory is what they cost
)

func init() {
	// The thread that says "end me with my parent" has to live as long as the process: the first one does.
	runtime.LockOSThread()
}

// serve hosts sessions over standard input and output until the input ends or SIGTERM comes.
func serve(network *Network, dir, waVersion string, in io.Reader, out, logs io.Writer) int {
	log := newLog(logs)
	sessions, err := openStore()
	if err == nil {
		err = setVersion(waVersion)
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		log.Error("cannot_start", "error", err.Error())
		return exitUsage
	}
	defer sessions.Close()
	keepStdout()
	dieWithParent()
	debug.SetGCPercent(memoryPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if !lock(ctx, filepath.Join(dir, "lock")) {
		log.Error("folder_is_occupied", "folder", dir)
		return machine.ExitOccupied
	}
	if err := machine.ClearSpills(dir); err != nil {
		log.Warn("spill_not_cleared", "error", err.Error())
	}
	// What whatsmeow keeps once for the whole process; a session's name is given at its pairing.
	wastore.DeviceProps.PlatformType = waCompanionReg.DeviceProps_CHROME.Enum()
	return machine.Run(ctx, machine.Config{
		In: in, Out: out, Dir: dir, Engine: Engine(), Store: sessions, HTTP: (&clients{network: network}).of, Log: log,
	})
}

// prepareStore creates or upgrades the tables of the session store.
func prepareStore() error {
	sessions, err := openStore()
	if err != nil {
		return err
	}
	defer sessions.Close()
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	return sessions.Prepare(ctx)
}

func openStore() (*store.Store, error) {
	dsn := os.Getenv(StoreVariable)
	if dsn == "" {
		return nil, fmt.Errorf("%s is not set: it names the database with the sessions", StoreVariable)
	}
	return store.Open(dsn)
}

// setVersion sets the version of WhatsApp Web that all sessions claim to be; empty leaves whatsmeow's own.
func setVersion(text string) error {
	if text == "" {
		return nil
	}
	version, err := wastore.ParseVersion(text)
	if err != nil || version.IsZero() {
		return fmt.Errorf("not a version of WhatsApp Web: %.40q", text)
	}
	wastore.SetWAVersion(version)
	return nil
}

// clients gives out one HTTP client per proxy: each whatsmeow client of its own would keep idle connections of its own.
type clients struct {
	network *Network

	mu    sync.Mutex
	known map[string]*http.Client
}

func (c *clients) of(proxyURL string) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.known[proxyURL]; client != nil {
		return client, nil
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.network.Authorities != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: c.network.Authorities}
	}
	if c.network.Proxy != nil {
		transport.Proxy = http.ProxyURL(c.network.Proxy)
	}
	if proxyURL != "" {
		proxy, err := url.Parse(proxyURL)
		if err != nil || proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, proxy.Scheme) {
			return nil, errors.New("not the address of a proxy") // not err: it shows the password
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	if c.known == nil {
		c.known = map[string]*http.Client{}
	}
	client := &http.Client{Transport: transport}
	c.known[proxyURL] = client
	return client, nil
}

// lock keeps the machine's folder for the life of this process. It waits for a predecessor: two processes with the same
// sessions would throw each other out of WhatsApp.
func lock(ctx context.Context, path string) bool {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	deadline := time.Now().Add(predecessorWait)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			held = file
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// held is never closed before the process ends.
var held *os.File

// newLog writes one JSON object a line, with the keys of the host's log.
func newLog(out io.Writer) *slog.Logger {
	names := map[string]string{slog.TimeKey: "timestamp", slog.MessageKey: "event"}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
			if name := names[attr.Key]; name != "" && len(groups) == 0 {
				attr.Key = name
			}
			if attr.Key == slog.LevelKey && len(groups) == 0 {
				attr.Value = slog.StringValue(strings.ToLower(attr.Value.String()))
			}
			return attr
		},
	}))
}
