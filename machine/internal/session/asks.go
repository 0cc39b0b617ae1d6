package session

import (
	"context"

	"go.mau.fi/whatsmeow/types"

	"tomada/machine/internal/protocol"
)

// GroupArguments name a group by its JID.
type GroupArguments struct {
	Group string `json:"group"`
}

// Group is what WhatsApp says of a group.
type Group struct {
	Group        string        `json:"group"`
	Subject      string        `json:"subject"`
	Description  string        `json:"description"`
	Owner        string        `json:"owner"`
	CreatedMs    int64         `json:"created_ms"`
	AnnounceOnly bool          `json:"announce_only"`
	Locked       bool          `json:"locked"`
	ApproveJoins bool          `json:"approve_joins"`
	IsCommunity  bool          `json:"is_community"`
	Community    string        `json:"community"`
	ExpirationS  uint32        `json:"expiration_s"`
	Participants []Participant `json:"participants"`
}

// Participant of a group; phone and lid as JIDs, empty while unknown.
type Participant struct {
	Phone        string `json:"phone"`
	Lid          string `json:"lid"`
	IsAdmin      bool   `json:"is_admin"`
	IsSuperAdmin bool   `json:"is_super_admin"`
	Name         string `json:"name"`
}

// GroupInfo asks WhatsApp for a group.
func (s *Session) GroupInfo(ctx context.Context, arguments GroupArguments) (any, error) {
	jid, err := types.ParseJID(arguments.Group)
	if err != nil || jid.Server != types.GroupServer {
		return nil, protocol.Errorf(protocol.Refused, "not a group")
	}
	info, err := s.client.GetGroupInfo(ctx, jid)
	if err != nil {
		return nil, failure(err)
	}
	s.names.renamed(jid, info.Name)
	group := Group{
		Group: info.JID.String(), Subject: info.Name, Description: info.Topic, Owner: text(first(info.OwnerPN, info.OwnerJID)),
		CreatedMs: info.GroupCreated.UnixMilli(), AnnounceOnly: info.IsAnnounce, Locked: info.IsLocked,
		ApproveJoins: info.IsJoinApprovalRequired, IsCommunity: info.IsParent, Community: text(info.LinkedParentJID),
		ExpirationS: info.DisappearingTimer, Participants: make([]Participant, 0, len(info.Participants)),
	}
	for _, one := range info.Participants {
		phone, lid := one.PhoneNumber, one.LID
		if phone.IsEmpty() && one.JID.Server == types.HiddenUserServer {
			phone = s.alt(ctx, one.JID, types.EmptyJID)
		}
		group.Participants = append(group.Participants, Participant{
			Phone: text(phone), Lid: text(lid), IsAdmin: one.IsAdmin, IsSuperAdmin: one.IsSuperAdmin, Name: one.DisplayName,
		})
	}
	return group, nil
}

// PhonesArguments are numbers in digits, with country code.
type PhonesArguments struct {
	Phones []string `json:"phones"`
}

// Known is whether a number has an account.
type Known struct {
	Query  string `json:"query"`
	Exists bool   `json:"exists"`
	Jid    string `json:"jid"`
	Lid    string `json:"lid"`
}

// OnWhatsApp asks which numbers have an account, and under which address.
func (s *Session) OnWhatsApp(ctx context.Context, arguments PhonesArguments) (any, error) {
	queries := make([]string, len(arguments.Phones))
	for i, phone := range arguments.Phones {
		queries[i] = "+" + phone
	}
	found, err := s.client.IsOnWhatsApp(ctx, queries)
	if err != nil {
		return nil, failure(err)
	}
	answers := make([]Known, 0, len(found))
	for _, one := range found {
		answer := Known{Query: one.Query, Exists: one.IsIn, Jid: text(one.JID)}
		if one.IsIn && one.JID.Server == types.DefaultUserServer {
			answer.Lid = text(s.alt(ctx, one.JID, types.EmptyJID))
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// NumbersArguments are hidden ids, as JIDs.
type NumbersArguments struct {
	Lids []string `json:"lids"`
}

// Numbers answers which numbers the session knows behind hidden ids; those that it does not know are left out.
func (s *Session) Numbers(ctx context.Context, arguments NumbersArguments) (any, error) {
	numbers := map[string]string{}
	for _, lid := range arguments.Lids {
		jid, err := types.ParseJID(lid)
		if err != nil || jid.Server != types.HiddenUserServer {
			return nil, protocol.Errorf(protocol.Refused, "not a hidden id: %.40q", lid)
		}
		found, err := s.client.Store.LIDs.GetPNForLID(ctx, jid)
		if err != nil {
			return nil, protocol.Errorf(protocol.Retry, "the session store cannot be read now")
		}
		if !found.IsEmpty() {
			numbers[lid] = found.String()
		}
	}
	return numbers, nil
}

func first(jids ...types.JID) types.JID {
	for _, jid := range jids {
		if !jid.IsEmpty() {
			return jid
		}
	}
	return types.EmptyJID
}
