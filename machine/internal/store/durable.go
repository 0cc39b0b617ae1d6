package store

import (
	"context"
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
// would give the same numbers again.
type durablePreKeys struct {
	store.PreKeyStore
	db     *dbutil.Database
	making sync.Mutex
}

func (d *durablePreKeys) GetOrGenPreKeys(ctx context.Context, count uint32) (made []*keys.PreKey, err error) {
	d.making.Lock()
	defer d.making.Unlock()
	err = commit(ctx, d.db, func(ctx context.Context) (err error) {
		made, err = d.PreKeyStore.GetOrGenPreKeys(ctx, count)
		return err
	})
	return made, err
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
