package machine

import (
	"context"
	"fmt"
	"runtime/debug"

	"tomada/machine/internal/protocol"
	"tomada/machine/internal/session"
)

// take carries out a request. Orders of life (open, close, log out) of one instance are carried out one after another;
// sends are queued in the order in which they come; questions go out at once.
func (m *machine) take(ctx context.Context, message protocol.FromHost) {
	command, err := decode(message.Command)
	if err != nil {
		m.answer(message.ID, nil, err)
		return
	}
	switch command.Type {
	case "send":
		m.answer(message.ID, nil, m.send(command))
	case "open_session", "close_session", "logout":
		m.inTurn(command.InstanceID, func() {
			value, err := m.order(ctx, command)
			m.answer(message.ID, value, err)
		})
	default:
		go func() {
			value, err := m.question(ctx, command)
			m.answer(message.ID, value, err)
		}()
	}
}

// inTurn runs an order when those of the same instance before it are done.
func (m *machine) inTurn(instanceID string, order func()) {
	mine := make(chan struct{})
	m.mu.Lock()
	before := m.turns[instanceID]
	m.turns[instanceID] = mine
	m.mu.Unlock()
	go func() {
		if before != nil {
			<-before
		}
		order()
		m.mu.Lock()
		if m.turns[instanceID] == mine {
			delete(m.turns, instanceID)
		}
		m.mu.Unlock()
		close(mine)
	}()
}

func (m *machine) order(ctx context.Context, command protocol.Command) (any, error) {
	switch command.Type {
	case "open_session":
		return m.open(ctx, command)
	case "logout":
		return nil, m.logout(ctx, command.InstanceID)
	}
	m.close(command.InstanceID)
	return nil, nil
}

func (m *machine) open(ctx context.Context, command protocol.Command) (any, error) {
	if command.Spec == nil || command.InstanceID == "" || command.Spec.StoreKey == "" {
		return nil, protocol.Errorf(protocol.Refused, "open_session needs a spec with instance_id and store_key")
	}
	if m.session(command.InstanceID) != nil {
		return nil, protocol.Errorf(protocol.Refused, "this session is open already")
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	opened, answer, err := session.Open(ctx, *command.Spec, session.Needs{
		Host: m, Store: m.config.Store, HTTP: m.config.HTTP, Log: m.config.Log,
	})
	if err != nil {
		return nil, err
	}
	if opened != nil {
		m.mu.Lock()
		m.sessions[command.InstanceID] = opened
		m.mu.Unlock()
	}
	return answer, nil
}

func (m *machine) close(instanceID string) {
	if open := m.session(instanceID); open != nil {
		open.Close()
		m.mu.Lock()
		delete(m.sessions, instanceID)
		m.mu.Unlock()
	}
}

func (m *machine) logout(ctx context.Context, instanceID string) error {
	open := m.session(instanceID)
	if open == nil {
		return noSession
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := open.Logout(ctx); err != nil {
		return err
	}
	m.close(instanceID)
	return nil
}

func (m *machine) send(command protocol.Command) error {
	open := m.session(command.InstanceID)
	if open == nil {
		return noSession
	}
	if command.Message == nil || command.Message.WaID == "" {
		return protocol.Errorf(protocol.Refused, "send needs a message with a wa_id")
	}
	return open.Send(*command.Message)
}

func (m *machine) question(ctx context.Context, command protocol.Command) (value any, err error) {
	defer func() {
		if panicked := recover(); panicked != nil { // it must not cost the other sessions of this machine
			m.config.Log.Error("question_panicked", "name", command.Name, "panic", fmt.Sprint(panicked),
				"stack", string(debug.Stack()))
			value, err = nil, protocol.Errorf(protocol.Unknown, "the engine failed on this question")
		}
	}()
	function, err := questionOf(command)
	if err != nil {
		return nil, err
	}
	open := m.session(command.InstanceID)
	if open == nil {
		return nil, noSession
	}
	limit := callTimeout
	if command.Type == "probe" {
		limit = probeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return function(ctx, open)
}

// questionOf is what answers a command; what this machine does not know is refused, session or not.
func questionOf(command protocol.Command) (func(context.Context, *session.Session) (any, error), error) {
	switch command.Type {
	case "probe":
		return func(ctx context.Context, open *session.Session) (any, error) { return open.Alive(ctx), nil }, nil
	case "request_phone_code":
		return func(ctx context.Context, open *session.Session) (any, error) {
			return open.PhoneCode(ctx, command.Phone)
		}, nil
	case "ask":
		if ask := asks[command.Name]; ask != nil {
			return func(ctx context.Context, open *session.Session) (any, error) {
				return ask(ctx, open, command.Arguments)
			}, nil
		}
		return nil, protocol.Errorf(protocol.Refused, "this machine does not know the question %q", command.Name)
	}
	return nil, protocol.Errorf(protocol.Refused, "this machine does not know the command %q", command.Type)
}

func (m *machine) session(instanceID string) *session.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[instanceID]
}

var noSession = protocol.Errorf(protocol.Retry, "this machine has no such session")

var badArguments = protocol.Errorf(protocol.Refused, "these are not the arguments of this question")
