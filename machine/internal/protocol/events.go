package protocol

// Source is the envelope's who and where. Addresses are WhatsApp's JIDs as text; Alt is the same person under the
// other kind of address (number or hidden id), empty if it is not known.
type Source struct {
	Chat      string `json:"chat"`
	ChatAlt   string `json:"chat_alt,omitempty"`
	ChatName  string `json:"chat_name,omitempty"`
	Sender    string `json:"sender"`
	SenderAlt string `json:"sender_alt,omitempty"`
	FromMe    bool   `json:"from_me,omitempty"`
	IsGroup   bool   `json:"is_group,omitempty"`
}

// Message is a message of one of the account's chats, of others or of the account's own devices. Raw are the bytes of
// its waE2E.Message; File names a file that holds them instead, if they are too many for a line.
type Message struct {
	Type string `json:"type"`
	Source
	WaID     string `json:"wa_id"`
	ServerID int    `json:"server_id,omitempty"`
	AtMs     int64  `json:"at_ms"`
	PushName string `json:"push_name,omitempty"`
	Category string `json:"category,omitempty"`
	Edit     string `json:"edit,omitempty"`
	Retries  int    `json:"retries,omitempty"`
	Raw      []byte `json:"raw,omitempty"`
	File     string `json:"file,omitempty"`
}

// Undecryptable is a message that could not be read; the sender was asked for it again.
type Undecryptable struct {
	Type string `json:"type"`
	Source
	WaID        string `json:"wa_id"`
	AtMs        int64  `json:"at_ms"`
	PushName    string `json:"push_name,omitempty"`
	Unavailable string `json:"unavailable,omitempty"`
	Hide        bool   `json:"hide,omitempty"`
}

// Receipt says what became of messages: kind "" (delivered), "inactive", "read", "read-self", "played".
type Receipt struct {
	Type string `json:"type"`
	Source
	Kind  string   `json:"kind"`
	WaIDs []string `json:"wa_ids"`
	AtMs  int64    `json:"at_ms"`
}

// Presence of a person, or of a person in a chat: available, unavailable, composing, recording, paused.
type Presence struct {
	Type string `json:"type"`
	Source
	State      string `json:"state"`
	LastSeenMs int64  `json:"last_seen_ms,omitempty"`
}

// Sent is the outcome of a send that WhatsApp acknowledged.
type Sent struct {
	Type      string `json:"type"`
	WaID      string `json:"wa_id"`
	ServerID  int    `json:"server_id,omitempty"`
	AtMs      int64  `json:"at_ms"`
	Chat      string `json:"chat"`
	ChatAlt   string `json:"chat_alt,omitempty"`
	ChatName  string `json:"chat_name,omitempty"`
	SenderAlt string `json:"sender_alt,omitempty"`
}

// SendFailed is the outcome of any other send; see Kind. Code is WhatsApp's, if it gave one.
type SendFailed struct {
	Type  string `json:"type"`
	WaID  string `json:"wa_id"`
	Error string `json:"error"`
	Kind  Kind   `json:"kind"`
	Code  int    `json:"code,omitempty"`
}

// Account is who a session belongs to; the type is "paired" or "connected".
type Account struct {
	Type         string `json:"type"`
	Device       string `json:"device"`
	Lid          string `json:"lid,omitempty"`
	PushName     string `json:"push_name,omitempty"`
	BusinessName string `json:"business_name,omitempty"`
	Platform     string `json:"platform,omitempty"`
}

// QrIssued is a QR text to scan, and when it expires.
type QrIssued struct {
	Type      string `json:"type"`
	Code      string `json:"code"`
	ExpiresMs int64  `json:"expires_ms"`
}

// Ended is an event that is a type and a reason: pairing_ended, disconnected, logged_out, replaced, outdated,
// connect_failed, session_ended. Code and ExpiresMs where they mean something.
type Ended struct {
	Type      string `json:"type"`
	Reason    string `json:"reason,omitempty"`
	Code      int    `json:"code,omitempty"`
	ExpiresMs int64  `json:"expires_ms,omitempty"`
}

// Named is our own display name, where it came after Connected.
type Named struct {
	Type     string `json:"type"`
	PushName string `json:"push_name"`
}
