package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.mau.fi/util/dbutil"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// pairsMax is how many pairs a session keeps in memory; all are in the table.
const pairsMax = 4096

// lids are the pairs of number and hidden id that one session knows.
type lids struct {
	db  *dbutil.Database
	key string

	mu    sync.Mutex
	pnOf  map[string]string // hidden user -> number
	lidOf map[string]string
}

var _ store.LIDStore = (*lids)(nil)

func newLids(db *dbutil.Database, key string) *lids {
	return &lids{db: db, key: key, pnOf: map[string]string{}, lidOf: map[string]string{}}
}

func (l *lids) PutLIDMapping(ctx context.Context, lid, pn types.JID) error {
	return l.PutManyLIDMappings(ctx, []store.LIDMapping{{LID: lid, PN: pn}})
}

// A number has one hidden id: an older pair of it goes.
const putPair = `
with old as (delete from tomada_lid where key = $1 and pn = $3 and lid <> $2)
insert into tomada_lid (key, lid, pn) values ($1, $2, $3)
on conflict (key, lid) do update set pn = excluded.pn where tomada_lid.pn <> excluded.pn`

func (l *lids) PutManyLIDMappings(ctx context.Context, mappings []store.LIDMapping) error {
	news := l.unknown(mappings)
	if len(news) == 0 {
		return nil
	}
	err := l.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, pair := range news {
			if _, err := l.db.Exec(ctx, putPair, l.key, pair.LID.User, pair.PN.User); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, pair := range news {
			l.keep(pair.LID.User, pair.PN.User)
		}
	}
	return err
}

func (l *lids) GetPNForLID(ctx context.Context, lid types.JID) (types.JID, error) {
	if lid.Server != types.HiddenUserServer {
		return types.EmptyJID, fmt.Errorf("not a hidden id: %s", lid)
	}
	user, err := l.find(ctx, l.pnOf, lid.User, "select lid, pn from tomada_lid where key = $1 and lid = $2")
	return jidLike(user, lid, types.DefaultUserServer), err
}

func (l *lids) GetLIDForPN(ctx context.Context, pn types.JID) (types.JID, error) {
	if pn.Server != types.DefaultUserServer {
		return types.EmptyJID, fmt.Errorf("not a number: %s", pn)
	}
	user, err := l.find(ctx, l.lidOf, pn.User, "select lid, pn from tomada_lid where key = $1 and pn = $2")
	return jidLike(user, pn, types.HiddenUserServer), err
}

func (l *lids) GetManyLIDsForPNs(ctx context.Context, pns []types.JID) (map[types.JID]types.JID, error) {
	found := make(map[types.JID]types.JID, len(pns))
	missing := map[string][]types.JID{} // number -> who asks, once per device
	l.mu.Lock()
	for _, pn := range pns {
		if lid := l.lidOf[pn.User]; lid != "" && pn.Server == types.DefaultUserServer {
			found[pn] = jidLike(lid, pn, types.HiddenUserServer)
		} else if pn.Server == types.DefaultUserServer {
			missing[pn.User] = append(missing[pn.User], pn)
		}
	}
	l.mu.Unlock()
	if len(missing) == 0 {
		return found, nil
	}
	query := "select lid, pn from tomada_lid where key = $1 and pn = any($2)"
	rows, err := l.db.Query(ctx, query, l.key, slices.Collect(maps.Keys(missing)))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var lid, number string
		if err := rows.Scan(&lid, &number); err != nil {
			return nil, err
		}
		l.keep(lid, number)
		for _, pn := range missing[number] {
			found[pn] = jidLike(lid, pn, types.HiddenUserServer)
		}
	}
	return found, rows.Err()
}

// find looks in memory, then in the table. What is nowhere is not remembered: another process may learn it.
func (l *lids) find(ctx context.Context, known map[string]string, user, query string) (string, error) {
	l.mu.Lock()
	other := known[user]
	l.mu.Unlock()
	if other != "" {
		return other, nil
	}
	var lid, pn string
	err := l.db.QueryRow(ctx, query, l.key, user).Scan(&lid, &pn)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	l.keep(lid, pn)
	if user == lid {
		return pn, nil
	}
	return lid, nil
}

// unknown are the pairs that are news, in one order for all who write: else two of them could wait for each other in
// the database. What is no pair of hidden id and number is left out, as whatsmeow does.
func (l *lids) unknown(mappings []store.LIDMapping) []store.LIDMapping {
	l.mu.Lock()
	defer l.mu.Unlock()
	var news []store.LIDMapping
	for _, pair := range mappings {
		isPair := pair.LID.Server == types.HiddenUserServer && pair.PN.Server == types.DefaultUserServer
		if isPair && l.pnOf[pair.LID.User] != pair.PN.User {
			news = append(news, pair)
		}
	}
	slices.SortStableFunc(news, func(a, b store.LIDMapping) int { return strings.Compare(a.LID.User, b.LID.User) })
	return news
}

func (l *lids) keep(lid, pn string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pnOf) >= pairsMax {
		clear(l.pnOf)
		clear(l.lidOf)
	}
	l.pnOf[lid], l.lidOf[pn] = pn, lid
}

func jidLike(user string, like types.JID, server string) types.JID {
	if user == "" {
		return types.EmptyJID
	}
	return types.JID{User: user, Device: like.Device, Server: server}
}
