package session

import (
	"context"
	"sync"
	"time"

	"go.mau.fi/whatsmeow/types"
)

const (
	nameWait    = time.Second // what an event waits for a group's subject
	subjectsMax = 1000        // of one session
	askedMax    = 4           // questions under way
)

// names knows what chats are called: a person's own name, which comes with messages and lies in the store, and a
// group's subject, which comes with none and is asked for at the group's first message. While WhatsApp takes long to
// answer nobody waits a second time: events are told without the name then.
type names struct {
	session *Session

	mu       sync.Mutex
	subjects map[string]string // by the group's id; empty: WhatsApp would not say
	asked    map[string]chan struct{}
	slow     bool
}

func newNames(s *Session) *names {
	return &names{session: s, subjects: map[string]string{}, asked: map[string]chan struct{}{}}
}

// of is the name of a chat, empty if it is not known; alt is the same person under the other kind of address.
func (n *names) of(ctx context.Context, chat, alt types.JID) string {
	switch chat.Server {
	case types.GroupServer:
		return n.subject(ctx, chat)
	case types.DefaultUserServer, types.HiddenUserServer:
		if name := n.person(ctx, chat); name != "" || alt.IsEmpty() {
			return name
		}
		return n.person(ctx, alt)
	}
	return ""
}

func (n *names) person(ctx context.Context, jid types.JID) string {
	if n.session.client.Store.ID == nil {
		return ""
	}
	contact, err := n.session.client.Store.Contacts.GetContact(ctx, jid.ToNonAD())
	if err != nil {
		return ""
	}
	for _, name := range []string{contact.PushName, contact.FullName, contact.BusinessName} {
		if name != "" {
			return name
		}
	}
	return ""
}

func (n *names) subject(ctx context.Context, group types.JID) string {
	n.mu.Lock()
	subject, known := n.subjects[group.User]
	answer, slow := n.ask(group, known), n.slow
	n.mu.Unlock()
	if known || answer == nil || slow {
		return subject
	}
	select {
	case <-answer:
	case <-ctx.Done():
	case <-time.After(nameWait):
		n.mu.Lock()
		n.slow = true
		n.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.subjects[group.User]
}

// ask begins a question, if there is none for this group; the caller has the lock.
func (n *names) ask(group types.JID, known bool) chan struct{} {
	if answer := n.asked[group.User]; known || answer != nil || len(n.asked) >= askedMax {
		return answer
	}
	answer := make(chan struct{})
	n.asked[group.User] = answer
	go n.fetch(group, answer)
	return answer
}

func (n *names) fetch(group types.JID, answer chan struct{}) {
	subject := ""
	info, err := n.session.client.GetGroupInfo(n.session.ctx, group)
	if err == nil {
		subject = info.Name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.subjects[group.User] == "" { // a change that came meanwhile is newer
		n.keep(group.User, subject)
	}
	n.slow = false
	delete(n.asked, group.User)
	close(answer)
}

// renamed notes a group's new subject.
func (n *names) renamed(group types.JID, subject string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keep(group.User, subject)
}

// forgetUnknown lets what WhatsApp would not say be asked again.
func (n *names) forgetUnknown() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for group, subject := range n.subjects {
		if subject == "" {
			delete(n.subjects, group)
		}
	}
}

func (n *names) keep(group, subject string) {
	if len(n.subjects) >= subjectsMax {
		clear(n.subjects)
	}
	n.subjects[group] = subject
}
