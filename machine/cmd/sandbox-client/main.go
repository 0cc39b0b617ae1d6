// Command sandbox-client is a WhatsApp client for the sandbox's own tests (tests/integration/sandbox). It is no part of
// the product and is not shipped.
//
// It is whatsmeow as it comes, with its own reconnects and acknowledgements, so that the simulated network is measured
// by something else than our machine, and by more of WhatsApp than the product uses. Of ours it has the session store.
//
// It speaks lines of JSON. A command is {"id": n, "do": name, "with": {...}} (commands.go); its answer {"id": n, "ok":
// value} or {"id": n, "error": text}; an event {"event": name, ...}. Commands run side by side. The end of the input
// ends it; what whatsmeow logs goes to standard error.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	wastore "go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	waLog "go.mau.fi/whatsmeow/util/log"
	"google.golang.org/protobuf/proto"

	"tomada/machine/internal/program"
	"tomada/machine/internal/sandbox"
	"tomada/machine/internal/store"
)

func main() {
	var network program.Network
	sandbox.Flags(flag.CommandLine, &network)
	name := flag.String("name", "", "`name` of the device, and the key of its session")
	flag.Parse()
	out := os.Stdout
	os.Stdout = os.Stderr // for waLog.Stdout
	if err := run(context.Background(), &network, *name, os.Stdin, out); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, network *program.Network, name string, in io.Reader, out io.Writer) error {
	if network.Authorities == nil || network.Proxy == nil || name == "" {
		return errors.New("-noise-root, -ca, -proxy and -name are needed") // it never connects to WhatsApp itself
	}
	sessions, err := store.Open(os.Getenv(program.StoreVariable))
	if err != nil {
		return err
	}
	defer sessions.Close()
	if err := sessions.Prepare(ctx); err != nil {
		return err
	}
	device, err := sessions.Device(ctx, name)
	if err != nil {
		return err
	}
	if device == nil {
		device = sessions.NewDevice(name)
	}
	wastore.DeviceProps.Os = proto.String(name)
	wastore.DeviceProps.PlatformType = waCompanionReg.DeviceProps_CHROME.Enum()
	c := &client{
		Client: whatsmeow.NewClient(device, waLog.Stdout("client", "INFO", false)),
		name:   name, sessions: sessions, out: json.NewEncoder(out), messages: map[string]*events.Message{},
	}
	c.lead(network)
	c.AddEventHandler(c.tell)
	if err := c.Connect(); err != nil {
		return err
	}
	return c.obey(ctx, in)
}

// client is one client of whatsmeow and what the tests may ask of it.
type client struct {
	*whatsmeow.Client
	name     string
	sessions *store.Store

	mu       sync.Mutex
	out      *json.Encoder
	messages map[string]*events.Message // those received, by id
}

// lead makes everything of the client go through the network's proxy.
func (c *client) lead(network *program.Network) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: network.Authorities}
	transport.Proxy = http.ProxyURL(network.Proxy)
	led := &http.Client{Transport: transport}
	c.SetWebsocketHTTPClient(led)
	c.SetPreLoginHTTPClient(led)
	c.SetMediaHTTPClient(led)
}

// obey carries out commands until the input ends.
func (c *client) obey(ctx context.Context, in io.Reader) error {
	for lines := json.NewDecoder(in); ; {
		var asked asked
		if err := lines.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("what is no command: %w", err)
		}
		go c.answer(ctx, asked)
	}
}

// asked is one command.
type asked struct {
	ID   int
	Do   string
	With arguments
}

func (c *client) answer(ctx context.Context, asked asked) {
	do, known := commands[asked.Do]
	if !known {
		c.say(map[string]any{"id": asked.ID, "error": "there is no such command"})
		return
	}
	done, err := do(c, ctx, asked.With)
	if err != nil {
		c.say(map[string]any{"id": asked.ID, "error": err.Error()})
		return
	}
	c.say(map[string]any{"id": asked.ID, "ok": done})
}

// tell passes an event on under whatsmeow's name: a message and a receipt in short, any other as it is, under "data".
func (c *client) tell(event any) {
	told := map[string]any{"event": fmt.Sprintf("%T", event)[len("*events."):]}
	switch event := event.(type) {
	case *events.Message:
		c.keep(event)
		told["id"] = event.Info.ID
		told["text"] = textOf(event)
		told["kinds"] = kindsOf(event)
		told["push_name"] = event.Info.PushName
		addSource(told, event.Info.MessageSource)
	case *events.Receipt:
		told["ids"] = event.MessageIDs
		told["type"] = event.Type
		addSource(told, event.MessageSource)
	default:
		told["data"] = event
	}
	c.say(told)
}

func addSource(told map[string]any, source types.MessageSource) {
	told["chat"] = source.Chat
	told["sender"] = source.Sender
	told["sender_alt"] = source.SenderAlt
	told["from_me"] = source.IsFromMe
	told["group"] = source.IsGroup
}

func textOf(event *events.Message) string {
	if text := event.Message.GetConversation(); text != "" {
		return text
	}
	return event.Message.GetExtendedTextMessage().GetText()
}

// kindsOf names the fields that a message has.
func kindsOf(event *events.Message) []string {
	kinds := []string{}
	message := event.Message.ProtoReflect()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); message.Has(field) {
			kinds = append(kinds, string(field.Name()))
		}
	}
	return kinds
}

func (c *client) keep(event *events.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages[event.Info.ID] = event
}

// message is one that was received.
func (c *client) message(id string) (*events.Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.messages[id]; found != nil {
		return found, nil
	}
	return nil, errors.New("no such message came")
}

func (c *client) say(line any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Encode(line); err != nil {
		log.Fatal(err)
	}
}
