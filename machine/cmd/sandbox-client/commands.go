package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/appstate"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"
)

// arguments are those of all commands; each reads its own.
type arguments struct {
	To     address   // whom or which group it concerns
	Others []address // of a group's members
	ID     string    // of a message that was received
	Text   string
	Data   []byte // in base64
	Action string // as whatsmeow has it
}

// address is one of WhatsApp's; a bare number is a person's.
type address struct{ types.JID }

func (a *address) UnmarshalText(text []byte) (err error) {
	if !bytes.ContainsRune(text, '@') {
		a.JID = types.NewJID(string(text), types.DefaultUserServer)
		return nil
	}
	a.JID, err = types.ParseJID(string(text))
	return err
}

func jids(of []address) []types.JID {
	made := make([]types.JID, len(of))
	for i, one := range of {
		made[i] = one.JID
	}
	return made
}

// commands are what may be asked, by name. An answer that says nothing is nil.
var commands = map[string]func(c *client, ctx context.Context, with arguments) (any, error){
	// the session
	"code": func(c *client, ctx context.Context, with arguments) (any, error) {
		return c.PairPhone(ctx, with.To.User, true, whatsmeow.PairClientChrome, "Chrome (Linux)")
	},
	"own_name": func(c *client, _ context.Context, _ arguments) (any, error) {
		return c.Store.PushName, nil // empty until the phone has said it
	},
	"has_keys": func(c *client, ctx context.Context, _ arguments) (any, error) {
		device, err := c.sessions.Device(ctx, c.name)
		return device != nil, err
	},
	"logout": func(c *client, ctx context.Context, _ arguments) (any, error) {
		return nil, c.Logout(ctx)
	},

	// messages
	"send": func(c *client, ctx context.Context, with arguments) (any, error) {
		return c.send(ctx, with.To.JID, &waE2E.Message{Conversation: &with.Text})
	},
	"send_document": (*client).sendDocument,
	"download":      (*client).download,
	"read":          (*client).read,
	"vote":          (*client).vote,
	"cast_vote":     (*client).castVote,

	// presence
	"presence": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SendPresence(ctx, types.Presence(with.Action))
	},
	"subscribe": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SubscribePresence(ctx, with.To.JID)
	},
	"typing": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SendChatPresence(ctx, with.To.JID, types.ChatPresenceComposing, types.ChatPresenceMediaText)
	},

	// accounts
	"exists": (*client).exists,
	"about": func(c *client, ctx context.Context, with arguments) (any, error) {
		found, err := c.GetUserInfo(ctx, []types.JID{with.To.JID})
		return found[with.To.JID].Status, err
	},
	"picture_url": func(c *client, ctx context.Context, with arguments) (any, error) {
		picture, err := c.GetProfilePictureInfo(ctx, with.To.JID, nil)
		if picture == nil {
			return "", err
		}
		return picture.URL, err
	},
	"set_about": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SetStatusMessage(ctx, types.SetStatusInput{Text: &with.Text})
	},
	"set_picture": func(c *client, ctx context.Context, with arguments) (any, error) {
		return c.SetGroupPhoto(ctx, types.EmptyJID, with.Data) // of no group: our own
	},
	"set_name": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SendAppState(ctx, appstate.BuildSettingPushName(with.Text))
	},
	"change_blocked": func(c *client, ctx context.Context, with arguments) (any, error) {
		_, err := c.UpdateBlocklist(ctx, with.To.JID, events.BlocklistChangeAction(with.Action))
		return nil, err
	},

	// groups
	"create_group": func(c *client, ctx context.Context, with arguments) (any, error) {
		made, err := c.CreateGroup(ctx, whatsmeow.ReqCreateGroup{Name: with.Text, Participants: jids(with.Others)})
		if err != nil {
			return nil, err
		}
		return made.JID, nil
	},
	"change_members": func(c *client, ctx context.Context, with arguments) (any, error) {
		_, err := c.UpdateGroupParticipants(ctx, with.To.JID, jids(with.Others), whatsmeow.ParticipantChange(with.Action))
		return nil, err
	},
	"set_group_name": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SetGroupName(ctx, with.To.JID, with.Text)
	},
	"set_group_topic": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.SetGroupTopic(ctx, with.To.JID, "", "", with.Text)
	},
	"invite_link": func(c *client, ctx context.Context, with arguments) (any, error) {
		return c.GetGroupInviteLink(ctx, with.To.JID, false)
	},
	"join": func(c *client, ctx context.Context, with arguments) (any, error) {
		return c.JoinGroupWithLink(ctx, with.Text)
	},
	"leave": func(c *client, ctx context.Context, with arguments) (any, error) {
		return nil, c.LeaveGroup(ctx, with.To.JID)
	},
	"group":  (*client).group,
	"groups": (*client).groups,
}

// send gives the message's id.
func (c *client) send(ctx context.Context, to types.JID, message *waE2E.Message) (any, error) {
	sent, err := c.SendMessage(ctx, to, message)
	return sent.ID, err
}

func (c *client) sendDocument(ctx context.Context, with arguments) (any, error) {
	uploaded, err := c.Upload(ctx, with.Data, whatsmeow.MediaDocument)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, with.To.JID, &waE2E.Message{DocumentMessage: &waE2E.DocumentMessage{
		FileName: proto.String("x.bin"), Mimetype: proto.String("application/octet-stream"),
		URL: &uploaded.URL, DirectPath: &uploaded.DirectPath, MediaKey: uploaded.MediaKey,
		FileEncSHA256: uploaded.FileEncSHA256, FileSHA256: uploaded.FileSHA256, FileLength: &uploaded.FileLength,
	}})
}

// download gives the medium of a message that was received.
func (c *client) download(ctx context.Context, with arguments) (any, error) {
	message, err := c.message(with.ID)
	if err != nil {
		return nil, err
	}
	return c.DownloadAny(ctx, message.Message)
}

func (c *client) read(ctx context.Context, with arguments) (any, error) {
	message, err := c.message(with.ID)
	if err != nil {
		return nil, err
	}
	return nil, c.MarkRead(ctx, []types.MessageID{with.ID}, time.Now(), message.Info.Chat, message.Info.Sender)
}

// vote decrypts a poll vote: the hashes of the chosen options, in hex.
func (c *client) vote(ctx context.Context, with arguments) (any, error) {
	message, err := c.message(with.ID)
	if err != nil {
		return nil, err
	}
	vote, err := c.DecryptPollVote(ctx, message)
	chosen := []string{}
	for _, option := range vote.GetSelectedOptions() {
		chosen = append(chosen, hex.EncodeToString(option))
	}
	return chosen, err
}

// castVote votes for one option of a poll that was received.
func (c *client) castVote(ctx context.Context, with arguments) (any, error) {
	poll, err := c.message(with.ID)
	if err != nil {
		return nil, err
	}
	vote, err := c.BuildPollVote(ctx, &poll.Info, []string{with.Text})
	if err != nil {
		return nil, err
	}
	return c.send(ctx, poll.Info.Chat, vote)
}

// exists says whether a number, with its "+", is on the network.
func (c *client) exists(ctx context.Context, with arguments) (any, error) {
	found, err := c.IsOnWhatsApp(ctx, []string{with.Text})
	return len(found) == 1 && found[0].IsIn, err
}

func (c *client) group(ctx context.Context, with arguments) (any, error) {
	info, err := c.GetGroupInfo(ctx, with.To.JID)
	if err != nil {
		return nil, err
	}
	members := map[string]bool{}
	for _, member := range info.Participants {
		members[member.PhoneNumber.String()] = member.IsAdmin
	}
	return map[string]any{"subject": info.Name, "topic": info.Topic, "members": members}, nil
}

func (c *client) groups(ctx context.Context, _ arguments) (any, error) {
	joined, err := c.GetJoinedGroups(ctx)
	found := []types.JID{}
	for _, group := range joined {
		found = append(found, group.JID)
	}
	return found, err
}
