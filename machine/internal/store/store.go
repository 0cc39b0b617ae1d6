// Package store keeps sessions in PostgreSQL, many in one schema, through whatsmeow's own store.
//
// What it adds to whatsmeow's:
//   - which device is whose: table tomada_session maps the host's store key to a device, written in the transaction
//     that stores the device. An error is never "no device": only a row that was looked for and is not there is.
//   - pairs of number and hidden id per session (tomada_lid); whatsmeow's own table is shared by all devices, which
//     would tell one tenant what another knows, and outlive them.
//   - an error of a statement reaches the connection to WhatsApp before whatsmeow sees it (driver.go).
//   - what must be on the disk before a frame leaves is committed synchronously (durable.go): a device, the ratchet of
//     a send, keys that are uploaded.
//     What is received need not be: its commit precedes the host's commit of the event in one log, and only that lets
//     WhatsApp be answered.
//   - a send and a decryption do not change one ratchet at the same moment (ratchets.go).
//
// One pool for the life of the process, of a few connections: reconnects, QR rounds and failures open none.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"go.mau.fi/util/dbutil"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/store/sqlstore/upgrades"
	"go.mau.fi/whatsmeow/types"
	waLog "go.mau.fi/whatsmeow/util/log"
)

// Schema is where all tables of the store lie. The machine's role owns it and may nothing else.
const Schema = "machine"

// connectionsMax is of one process; each is a backend of 5 to 7 MB.
const connectionsMax = 4

// ours are the tables beside whatsmeow's. The host's keys are `<instance>.<epoch>`; only the host knows that, and the
// index is for it. Deleting a device deletes what is keyed by it; whatsmeow forgot one table.
const ours = `
create table if not exists tomada_session (
	key text primary key,
	jid text not null unique references whatsmeow_device(jid) on delete cascade on update cascade
);
create index if not exists tomada_session_instance on tomada_session (split_part(key, '.', 1));
create table if not exists tomada_lid (
	key text not null references tomada_session(key) on delete cascade,
	lid text not null,
	pn text not null,
	primary key (key, lid)
);
create index if not exists tomada_lid_pn on tomada_lid (key, pn);
do $$ begin
	if not exists (
		select from pg_constraint
		where conname = 'tomada_of_device' and conrelid = 'whatsmeow_privacy_tokens'::regclass
	) then
		delete from whatsmeow_privacy_tokens where our_jid not in (select jid from whatsmeow_device);
		alter table whatsmeow_privacy_tokens add constraint tomada_of_device
			foreign key (our_jid) references whatsmeow_device(jid) on delete cascade on update cascade;
	end if;
end $$;
`

// Store is the session store of one machine.
type Store struct {
	db        *dbutil.Database
	container *sqlstore.Container
}

// Open makes the pool; nothing is connected yet.
func Open(dsn string) (*Store, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the store's address is not one of PostgreSQL") // not err: it shows the password
	}
	config.RuntimeParams["search_path"] = Schema
	config.RuntimeParams["synchronous_commit"] = "off"
	config.RuntimeParams["application_name"] = "tomada-machine"
	config.ConnectTimeout = 5 * time.Second
	pool := sql.OpenDB(connector{stdlib.GetConnector(*config)})
	pool.SetMaxOpenConns(connectionsMax)
	pool.SetMaxIdleConns(connectionsMax)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db, err := dbutil.NewWithDB(pool, "postgres")
	if err != nil {
		return nil, err
	}
	db.UpgradeTable = upgrades.Table
	db.VersionTable = "whatsmeow_version"
	return &Store{db, sqlstore.NewWithWrappedDB(db, waLog.Noop)}, nil
}

// Prepare creates or upgrades the tables. The host has it done once, before machines start.
func (s *Store) Prepare(ctx context.Context) error {
	if err := s.container.Upgrade(ctx); err != nil {
		return err
	}
	_, err := s.db.Exec(ctx, ours)
	return err
}

// Close ends the pool.
func (s *Store) Close() error { return s.container.Close() }

// Device is the device under a key, nil if there is none.
func (s *Store) Device(ctx context.Context, key string) (*store.Device, error) {
	var text string
	err := s.db.QueryRow(ctx, "select jid from tomada_session where key = $1", key).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	jid, err := types.ParseJID(text)
	if err != nil {
		return nil, fmt.Errorf("the session's device: %w", err)
	}
	device, err := s.container.GetDevice(ctx, jid)
	if device != nil {
		s.adopt(device, key)
	}
	return device, err
}

// Forget deletes the device under a key and everything of it.
func (s *Store) Forget(ctx context.Context, key string) error {
	_, err := s.db.Exec(ctx, "delete from whatsmeow_device where jid in (select jid from tomada_session where key = $1)", key)
	return err
}

// NewDevice is a device with fresh keys, stored under the key once a phone has paired it.
func (s *Store) NewDevice(key string) *store.Device {
	device := s.container.NewDevice()
	device.Container = &owner{store: s, key: key}
	return device
}

// adopt puts our parts in the place of whatsmeow's.
func (s *Store) adopt(device *store.Device, key string) {
	device.Container = &owner{store: s, key: key}
	device.LIDs = newLids(s.db, key)
	turns := newRatchets()
	device.Sessions = turningSessions{durableSessions{device.Sessions, s.db}, turns}
	device.SenderKeys = durableSenderKeys{device.SenderKeys, s.db}
	device.PreKeys = &durablePreKeys{PreKeyStore: device.PreKeys, db: s.db, jid: device.GetJID().String()}
	device.EventBuffer = &eventBuffer{EventBuffer: device.EventBuffer, ratchets: turns}
	device.MsgSecrets = secrets{device.MsgSecrets, device.LIDs}
	device.PrivacyTokens = tokens{device.PrivacyTokens, device.LIDs}
}

// owner stores and deletes the device of one key.
type owner struct {
	store *Store
	key   string
}

var _ store.DeviceContainer = (*owner)(nil)

func (o *owner) PutDevice(ctx context.Context, device *store.Device) error {
	if device.Initialized {
		return o.store.container.PutDevice(ctx, device)
	}
	return o.store.db.DoTxn(ctx, nil, func(ctx context.Context) error { return o.putNew(ctx, device) })
}

// putNew stores a device that was just paired, on the disk before WhatsApp is told. WhatsApp may give it the address of
// one that is gone and whose rows are still here: they go first, else the old keys would stay.
func (o *owner) putNew(ctx context.Context, device *store.Device) error {
	db := o.store.db
	if _, err := db.Exec(ctx, durably); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `delete from whatsmeow_device where jid = $1
		or jid in (select jid from tomada_session where key = $2)`, device.ID, o.key)
	if err != nil {
		return err
	}
	if err := o.store.container.PutDevice(ctx, device); err != nil {
		return err
	}
	o.store.adopt(device, o.key)
	_, err = db.Exec(ctx, "insert into tomada_session (key, jid) values ($1, $2)", o.key, device.ID)
	return err
}

func (o *owner) DeleteDevice(ctx context.Context, device *store.Device) error {
	return o.store.container.DeleteDevice(ctx, device)
}
