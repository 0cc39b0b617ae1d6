package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/util/dbutil"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/util/keys"
)

// durably makes the commit of the transaction it is said in wait for the disk.
const durably = "set local synchronous_commit to on"

// retryClearPause is the time between two sweeps of the retry store; whatsmeow would sweep it at every send, since it
// never notes when it last did (retry.go, lastRetryStoreClear).
const retryClearPause = time.Hour

type decryptingKey struct{}

// commit runs one write so that it is on the disk before whatsmeow goes on to write the frame: a send, the answer to a
// retry, keys that are uploaded. If a database that crashed went back behind a frame that left, the next message would
// repeat its counter, and the phone could not read it before a retry. What is written while decrypting need not be: its
// commit precedes the host's.
func commit(ctx context.Context, db *dbutil.Database, write func(context.Context) error) error {
	if ctx.Value(decryptingKey{}) != nil {
		return write(ctx)
	}
	return db.DoTxn(ctx, nil, func(ctx context.Context) error {
		if _, err := db.Exec(ctx, durably); err != nil {
			return err
		}
		return write(ctx)
	})
}

type durableSessions struct {
	store.SessionStore
	db *dbutil.Database
}

func (d durableSessions) PutSession(ctx context.Context, address string, session []byte) error {
	return commit(ctx, d.db, func(ctx context.Context) error { return d.SessionStore.PutSession(ctx, address, session) })
}

func (d durableSessions) PutManySessions(ctx context.Context, sessions map[string][]byte) error {
	return commit(ctx, d.db, func(ctx context.Context) error { return d.SessionStore.PutManySessions(ctx, sessions) })
}

type durableSenderKeys struct {
	store.SenderKeyStore
	db *dbutil.Database
}

func (d durableSenderKeys) PutSenderKey(ctx context.Context, group, user string, session []byte) error {
	return commit(ctx, d.db, func(ctx context.Context) error {
		return d.SenderKeyStore.PutSenderKey(ctx, group, user, session)
	})
}

// durablePreKeys makes keys under a lock of its own: whatsmeow's is let go before our commit, and whoever had it next
// would give the same numbers again. Those of a pairing, 812, are stored in one statement instead of one each.
type durablePreKeys struct {
	store.PreKeyStore
	db     *dbutil.Database
	jid    string
	making sync.Mutex
}

const (
	unuploadedPreKeys = `select key_id, key from whatsmeow_pre_keys
		where jid = $1 and not uploaded order by key_id limit $2`
	lastPreKey   = "select coalesce(max(key_id), 0) from whatsmeow_pre_keys where jid = $1"
	insertPreKey = `insert into whatsmeow_pre_keys (jid, key_id, key, uploaded)
		select $1, it.id, it.key, false from unnest($2::integer[], $3::bytea[]) as it (id, key)`
)

func (d *durablePreKeys) GetOrGenPreKeys(ctx context.Context, count uint32) (made []*keys.PreKey, err error) {
	d.making.Lock()
	defer d.making.Unlock()
	err = commit(ctx, d.db, func(ctx context.Context) (err error) {
		if made, err = d.unuploaded(ctx, count); err != nil || len(made) >= int(count) {
			return err
		}
		return d.make(ctx, &made, int(count)-len(made))
	})
	return made, err
}

func (d *durablePreKeys) unuploaded(ctx context.Context, count uint32) ([]*keys.PreKey, error) {
	rows, err := d.db.Query(ctx, unuploadedPreKeys, d.jid, count)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []*keys.PreKey
	for rows.Next() {
		var id uint32
		var private []byte
		if err := rows.Scan(&id, &private); err != nil {
			return nil, err
		}
		if len(private) != 32 {
			return nil, errors.New("a key in the session store has not 32 bytes")
		}
		pair := keys.NewKeyPairFromPrivateKey([32]byte(private))
		found = append(found, &keys.PreKey{KeyPair: *pair, KeyID: id})
	}
	return found, rows.Err()
}

func (d *durablePreKeys) make(ctx context.Context, made *[]*keys.PreKey, count int) error {
	var last int32
	if err := d.db.QueryRow(ctx, lastPreKey, d.jid).Scan(&last); err != nil {
		return err
	}
	ids, privates := make([]int32, count), make([][]byte, count)
	for i := range count {
		ids[i] = last + int32(i) + 1
		key := keys.NewPreKey(uint32(ids[i]))
		privates[i] = key.Priv[:]
		*made = append(*made, key)
	}
	_, err := d.db.Exec(ctx, insertPreKey, d.jid, ids, privates)
	return err
}

func (d *durablePreKeys) GenOnePreKey(ctx context.Context) (made *keys.PreKey, err error) {
	d.making.Lock()
	defer d.making.Unlock()
	err = commit(ctx, d.db, func(ctx context.Context) (err error) {
		made, err = d.PreKeyStore.GenOnePreKey(ctx)
		return err
	})
	return made, err
}

// eventBuffer marks the contexts of decryptions, has them take their turn, and sweeps less often.
type eventBuffer struct {
	store.EventBuffer
	ratchets  ratchets
	clearedMs atomic.Int64
}

func (e *eventBuffer) DoDecryptionTxn(ctx context.Context, decrypt func(context.Context) error) error {
	if err := e.ratchets.take(ctx); err != nil {
		return err
	}
	defer e.ratchets.release()
	return e.EventBuffer.DoDecryptionTxn(context.WithValue(ctx, decryptingKey{}, true), decrypt)
}

func (e *eventBuffer) DeleteOldOutgoingEvents(ctx context.Context) error {
	nowMs, clearedMs := time.Now().UnixMilli(), e.clearedMs.Load()
	if nowMs-clearedMs < retryClearPause.Milliseconds() || !e.clearedMs.CompareAndSwap(clearedMs, nowMs) {
		return nil
	}
	return e.EventBuffer.DeleteOldOutgoingEvents(ctx)
}
