package store

import (
	"context"
	"sync/atomic"
	"time"

	"go.mau.fi/util/dbutil"
	"go.mau.fi/whatsmeow/store"
)

// durably makes the commit of the transaction it is said in wait for the disk.
const durably = "set local synchronous_commit to on"

// retryClearPause is the time between two sweeps of the retry store; whatsmeow would sweep it at every send, since it
// never notes when it last did (retry.go, lastRetryStoreClear).
const retryClearPause = time.Hour

type sendKey struct{}

// ForSend returns a context under which ratchets are on the disk before whatsmeow goes on to write the frame. If a
// database that crashed went back behind a frame that left, the next message would repeat its counter, and the phone
// could not read it before a retry.
func ForSend(ctx context.Context) context.Context { return context.WithValue(ctx, sendKey{}, true) }

// commit runs one write, durably if its context is a send's.
func commit(ctx context.Context, db *dbutil.Database, write func(context.Context) error) error {
	if ctx.Value(sendKey{}) == nil {
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

type retryStore struct {
	store.EventBuffer
	clearedMs atomic.Int64
}

func (r *retryStore) DeleteOldOutgoingEvents(ctx context.Context) error {
	nowMs, clearedMs := time.Now().UnixMilli(), r.clearedMs.Load()
	if nowMs-clearedMs < retryClearPause.Milliseconds() || !r.clearedMs.CompareAndSwap(clearedMs, nowMs) {
		return nil
	}
	return r.EventBuffer.DeleteOldOutgoingEvents(ctx)
}
