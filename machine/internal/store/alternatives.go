package store

import (
	"context"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// whatsmeow's queries for a message's secret and a person's token look under the person's other address too, by its
// own table of pairs. That is empty here (lids.go), so we ask a second time.

type secrets struct {
	store.MsgSecretStore
	lids store.LIDStore
}

func (s secrets) GetMessageSecret(
	ctx context.Context, chat, sender types.JID, id types.MessageID,
) (secret []byte, realSender types.JID, err error) {
	for _, inChat := range addresses(ctx, s.lids, chat) {
		for _, from := range addresses(ctx, s.lids, sender) {
			secret, realSender, err = s.MsgSecretStore.GetMessageSecret(ctx, inChat, from, id)
			if err != nil || secret != nil {
				return secret, realSender, err
			}
		}
	}
	return nil, types.EmptyJID, nil
}

type tokens struct {
	store.PrivacyTokenStore
	lids store.LIDStore
}

func (t tokens) GetPrivacyToken(ctx context.Context, user types.JID) (token *store.PrivacyToken, err error) {
	for _, address := range addresses(ctx, t.lids, user) {
		token, err = t.PrivacyTokenStore.GetPrivacyToken(ctx, address)
		if err != nil || token != nil {
			return token, err
		}
	}
	return nil, nil
}

// addresses are this one and, if it is known, the same person's other one.
func addresses(ctx context.Context, lids store.LIDStore, jid types.JID) []types.JID {
	var other types.JID
	switch jid.Server {
	case types.DefaultUserServer:
		other, _ = lids.GetLIDForPN(ctx, jid)
	case types.HiddenUserServer:
		other, _ = lids.GetPNForLID(ctx, jid)
	}
	if other.IsEmpty() {
		return []types.JID{jid}
	}
	return []types.JID{jid, other}
}
