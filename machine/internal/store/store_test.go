// The store is tested against a real PostgreSQL, which tests/integration/machine_store starts; without one these tests
// are skipped in words. TOMADA_TEST_POSTGRES is the address of a superuser: each test makes a schema and role anew.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

const patience = 30 * time.Second

// database is a fresh schema, its owner's store, and a connection of the superuser's.
type database struct {
	t     *testing.T
	dsn   string // of the machine's role
	role  string
	admin *pgx.Conn
}

func fresh(t *testing.T) *database {
	t.Helper()
	address := os.Getenv("TOMADA_TEST_POSTGRES")
	if address == "" {
		t.Skip("TOMADA_TEST_POSTGRES is not set: tests/integration/machine_store runs this with a PostgreSQL")
	}
	admin, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	config := admin.Config()
	role := strings.ToLower("machine_" + rand.Text()[:8])
	d := &database{t: t, role: role, admin: admin, dsn: fmt.Sprintf(
		"host=%s port=%d dbname=%s user=%s password=secret options='-c role=%s'",
		config.Host, config.Port, config.Database, config.User, role,
	)}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	d.as("drop schema if exists machine cascade")
	d.as("create role " + role)
	d.as("create schema machine authorization " + role)
	return d
}

// as runs statements of the superuser's.
func (d *database) as(statement string, arguments ...any) {
	d.t.Helper()
	if _, err := d.admin.Exec(context.WithoutCancel(d.t.Context()), statement, arguments...); err != nil {
		d.t.Fatalf("%s: %v", statement, err)
	}
}

// kill ends all backends of the store.
func (d *database) kill() {
	d.t.Helper()
	d.as("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tomada-machine'")
}

func (d *database) count(query string, arguments ...any) (number int) {
	d.t.Helper()
	if err := d.admin.QueryRow(d.t.Context(), query, arguments...).Scan(&number); err != nil {
		d.t.Fatalf("%s: %v", query, err)
	}
	return number
}

func (d *database) open() *Store {
	d.t.Helper()
	opened, err := Open(d.dsn)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = opened.Close() })
	return opened
}

func (d *database) prepared() *Store {
	d.t.Helper()
	opened := d.open()
	if err := opened.Prepare(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	return opened
}

// paired stores a device under a key, as a pairing does.
func paired(t *testing.T, s *Store, key, jid string) *store.Device {
	t.Helper()
	device := s.NewDevice(key)
	address, err := types.ParseJID(jid)
	if err != nil {
		t.Fatal(err)
	}
	device.ID = &address
	device.LID = types.JID{User: "9" + address.User, Device: address.Device, Server: types.HiddenUserServer}
	device.Account = &waAdv.ADVSignedDeviceIdentity{
		Details: []byte("x"), AccountSignature: make([]byte, 64), AccountSignatureKey: make([]byte, 32),
		DeviceSignature: make([]byte, 64),
	}
	if err := device.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	return device
}

var (
	lid    = types.NewJID("98765", types.HiddenUserServer)
	number = types.NewJID("5544999999999", types.DefaultUserServer)
)

// A device is found under its key by whoever asks, and under no other; before the pairing there is none.
func TestADeviceUnderItsKey(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	if device, err := s.Device(t.Context(), "A.1"); device != nil || err != nil {
		t.Fatalf("before: %v, %v", device, err)
	}
	_ = s.NewDevice("A.1") // a round of QR codes stores nothing
	saved := paired(t, s, "A.1", "551:1@s.whatsapp.net")
	other := d.open()
	found, err := other.Device(t.Context(), "A.1")
	if err != nil || found == nil || found.GetJID() != saved.GetJID() || *found.IdentityKey.Priv != *saved.IdentityKey.Priv {
		t.Errorf("found %v, %v", found, err)
	}
	if device, err := other.Device(t.Context(), "A.2"); device != nil || err != nil {
		t.Errorf("under another key: %v, %v", device, err)
	}
	if err := s.Prepare(t.Context()); err != nil {
		t.Errorf("preparing again: %v", err)
	}
}

// An error is never "no device", whatever errs, and never goes unnoticed: the connection's fault is called before the
// error is seen.
func TestAnErrorIsNeverNoDevice(t *testing.T) {
	for name, break_ := range map[string]func(*database){
		"no right to the table": func(d *database) { d.as("alter table machine.tomada_session owner to postgres") },
		"no right to devices":   func(d *database) { d.as("alter table machine.whatsmeow_device owner to postgres") },
		"no table":              func(d *database) { d.as("drop table machine.tomada_session cascade") },
		"no schema":             func(d *database) { d.as("alter schema machine rename to elsewhere") },
	} {
		t.Run(name, func(t *testing.T) {
			d := fresh(t)
			s := d.prepared()
			paired(t, s, "A.1", "551:1@s.whatsapp.net")
			t.Cleanup(func() { _, _ = d.admin.Exec(context.Background(), "drop schema if exists elsewhere cascade") })
			break_(d)
			var fault atomic.Pointer[error]
			ctx := WithFault(t.Context(), func(err error) { fault.Store(&err) })
			device, err := s.Device(ctx, "A.1")
			if err == nil || device != nil {
				t.Fatalf("got %v, %v", device, err)
			}
			if seen := fault.Load(); seen == nil || !errors.Is(err, *seen) {
				t.Errorf("the fault is %v, the error %v", seen, err)
			}
		})
	}
}

// Every method that whatsmeow calls while it decrypts or sends reports its error before it returns it: with a database
// that refuses to be written, and with one whose tables are out of reach.
func TestEveryMethodReports(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	device := paired(t, s, "A.1", "551:1@s.whatsapp.net")
	writes := map[string]func(context.Context) error{
		"PutSession": func(ctx context.Context) error { return device.Sessions.PutSession(ctx, "1.1:0", []byte("x")) },
		"PutManySessions": func(ctx context.Context) error {
			return device.Sessions.PutManySessions(ctx, map[string][]byte{"1.1:0": {1}})
		},
		"PutSenderKey":    func(ctx context.Context) error { return device.SenderKeys.PutSenderKey(ctx, "g", "u", []byte("x")) },
		"PutIdentity":     func(ctx context.Context) error { return device.Identities.PutIdentity(ctx, "1.1:0", [32]byte{}) },
		"GenOnePreKey":    func(ctx context.Context) error { _, err := device.PreKeys.GenOnePreKey(ctx); return err },
		"GetOrGenPreKeys": func(ctx context.Context) error { _, err := device.PreKeys.GetOrGenPreKeys(ctx, 2); return err },
		"RemovePreKey":    func(ctx context.Context) error { return device.PreKeys.RemovePreKey(ctx, 1) },
		"PutMessageSecret": func(ctx context.Context) error {
			return device.MsgSecrets.PutMessageSecret(ctx, number, number, "A", make([]byte, 32))
		},
		"PutLIDMapping":  func(ctx context.Context) error { return device.LIDs.PutLIDMapping(ctx, lid, number) },
		"MigratePNToLID": func(ctx context.Context) error { return device.Sessions.MigratePNToLID(ctx, number, lid) },
		"DoDecryptionTxn": func(ctx context.Context) error {
			return device.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
				return device.EventBuffer.PutBufferedEvent(ctx, [32]byte{}, []byte("x"), time.Now())
			})
		},
		"AddOutgoingEvent": func(ctx context.Context) error {
			return device.EventBuffer.AddOutgoingEvent(ctx, number, "A", "wa", []byte("x"))
		},
		"Save":   func(ctx context.Context) error { return device.Save(ctx) },
		"Forget": func(ctx context.Context) error { return s.Forget(ctx, "A.1") },
	}
	reads := map[string]func(context.Context) error{
		"GetSession":   func(ctx context.Context) error { _, err := device.Sessions.GetSession(ctx, "1.1:0"); return err },
		"HasSession":   func(ctx context.Context) error { _, err := device.Sessions.HasSession(ctx, "1.1:0"); return err },
		"GetSenderKey": func(ctx context.Context) error { _, err := device.SenderKeys.GetSenderKey(ctx, "g", "u"); return err },
		"GetPreKey":    func(ctx context.Context) error { _, err := device.PreKeys.GetPreKey(ctx, 1); return err },
		"IsTrusted": func(ctx context.Context) error {
			_, err := device.Identities.IsTrustedIdentity(ctx, "1.1:0", [32]byte{})
			return err
		},
		"GetBufferedEvent": func(ctx context.Context) error {
			_, err := device.EventBuffer.GetBufferedEvent(ctx, [32]byte{})
			return err
		},
		"GetPNForLID": func(ctx context.Context) error { _, err := device.LIDs.GetPNForLID(ctx, lid); return err },
		"GetLIDForPN": func(ctx context.Context) error { _, err := device.LIDs.GetLIDForPN(ctx, number); return err },
		"GetManyLIDsForPNs": func(ctx context.Context) error {
			_, err := device.LIDs.GetManyLIDsForPNs(ctx, []types.JID{number})
			return err
		},
		"GetManySessions": func(ctx context.Context) error {
			_, err := device.Sessions.GetManySessions(ctx, []string{"1.1:0"})
			return err
		},
		"GetContact": func(ctx context.Context) error { // of another person each time: it remembers
			_, err := device.Contacts.GetContact(ctx, types.NewJID(rand.Text(), types.DefaultUserServer))
			return err
		},
		"GetMessageSecret": func(ctx context.Context) error {
			_, _, err := device.MsgSecrets.GetMessageSecret(ctx, number, number, "A")
			return err
		},
		"GetPrivacyToken": func(ctx context.Context) error {
			_, err := device.PrivacyTokens.GetPrivacyToken(ctx, number)
			return err
		},
	}
	database := pgx.Identifier{d.admin.Config().Database}.Sanitize()
	d.as("alter database " + database + " set default_transaction_read_only to on")
	t.Cleanup(func() { d.as("alter database " + database + " reset default_transaction_read_only") })
	d.kill()
	for name, call := range writes {
		reports(t, "read only: "+name, call)
	}
	for name, call := range reads {
		if err := call(t.Context()); err != nil {
			t.Errorf("read only: %s: %v", name, err)
		}
	}
	d.as("alter schema machine owner to postgres") // and with it the role's right to use it
	for name, call := range reads {
		reports(t, "out of reach: "+name, call)
	}
}

func reports(t *testing.T, name string, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	err := call(WithFault(ctx, func(err error) { cancel(err) }))
	if err == nil {
		t.Errorf("%s: no error", name)
	} else if ctx.Err() == nil {
		t.Errorf("%s: nobody was told of %v", name, err)
	}
}

// A backend that is killed in the midst of a transaction is reported, and the next call works; outside of one nothing
// was lost, so the statement is made again on another connection and nobody is the wiser.
func TestAKilledBackend(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	device := paired(t, s, "A.1", "551:1@s.whatsapp.net")
	reports(t, "in a transaction", func(ctx context.Context) error {
		return device.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
			if err := device.EventBuffer.PutBufferedEvent(ctx, [32]byte{1}, []byte("x"), time.Now()); err != nil {
				return err
			}
			d.kill()
			return device.EventBuffer.PutBufferedEvent(ctx, [32]byte{2}, []byte("x"), time.Now())
		})
	})
	reports(t, "at the commit", func(ctx context.Context) error {
		return device.EventBuffer.DoDecryptionTxn(ctx, func(context.Context) error { d.kill(); return nil })
	})
	d.kill()
	if event, err := device.EventBuffer.GetBufferedEvent(t.Context(), [32]byte{1}); err != nil || event != nil {
		t.Errorf("afterwards: %v, %v", event, err)
	}
}

// A device that WhatsApp gives an address anew takes the place of what was there under it, and under its key.
func TestAPairingReplaces(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	stale := paired(t, s, "A.1", "551:1@s.whatsapp.net")
	if err := stale.Sessions.PutSession(t.Context(), "1.1:0", []byte("old")); err != nil {
		t.Fatal(err)
	}
	paired(t, s, "A.1", "551:2@s.whatsapp.net") // the key's device is another one now
	paired(t, s, "B.1", "551:2@s.whatsapp.net") // and that address another key's
	if device, err := s.Device(t.Context(), "A.1"); device != nil || err != nil {
		t.Errorf("the first key still has %v, %v", device, err)
	}
	if found, err := s.Device(t.Context(), "B.1"); err != nil || found.GetJID().Device != 2 {
		t.Errorf("found %v, %v", found, err)
	}
	if left := d.count("select count(*) from machine.whatsmeow_device") + d.count("select count(*) from machine.whatsmeow_sessions"); left != 1 {
		t.Errorf("%d rows are left", left)
	}
}

// What one session knows of hidden ids no other learns, and whatsmeow's own table, which all devices share, stays empty.
func TestHiddenIdsAreOnesOwn(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	one, two := paired(t, s, "A.1", "551:1@s.whatsapp.net"), paired(t, s, "B.1", "552:1@s.whatsapp.net")
	broken := []store.LIDMapping{{LID: number, PN: lid}, {LID: lid, PN: number}, {}}
	if err := one.LIDs.PutManyLIDMappings(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	again, err := d.open().Device(t.Context(), "A.1") // with an empty memory
	if err != nil {
		t.Fatal(err)
	}
	for name, device := range map[string]*store.Device{"at once": one, "after a restart": again} {
		byLid, _ := device.GetAltJID(t.Context(), lid)
		byNumber, _ := device.GetAltJID(t.Context(), number)
		if byLid != number || byNumber != lid {
			t.Errorf("%s: %v, %v", name, byLid, byNumber)
		}
	}
	if found, err := two.GetAltJID(t.Context(), lid); err != nil || !found.IsEmpty() {
		t.Errorf("the neighbour knows %v, %v", found, err)
	}
	if many, err := two.LIDs.GetManyLIDsForPNs(t.Context(), []types.JID{number}); err != nil || len(many) != 0 {
		t.Errorf("the neighbour knows %v, %v", many, err)
	}
	if shared := d.count("select count(*) from machine.whatsmeow_lid_map"); shared != 0 {
		t.Errorf("%d pairs are shared", shared)
	}
}

// A number has one hidden id, the newest; many are asked for at once, each per device.
func TestPairsChange(t *testing.T) {
	d := fresh(t)
	device := paired(t, d.prepared(), "A.1", "551:1@s.whatsapp.net")
	newer := types.NewJID("111", types.HiddenUserServer)
	for _, each := range []types.JID{lid, lid, newer} {
		if err := device.LIDs.PutLIDMapping(t.Context(), each, number); err != nil {
			t.Fatal(err)
		}
	}
	again, _ := d.open().Device(t.Context(), "A.1")
	third := number
	third.Device = 3
	found, err := again.LIDs.GetManyLIDsForPNs(t.Context(), []types.JID{number, third, types.NewJID("1", types.DefaultUserServer)})
	if err != nil || len(found) != 2 || found[number].User != "111" || found[third].Device != 3 {
		t.Errorf("found %v, %v", found, err)
	}
}

// A secret and a token are found under either address of a person.
func TestAlternatives(t *testing.T) {
	d := fresh(t)
	device := paired(t, d.prepared(), "A.1", "551:1@s.whatsapp.net")
	ctx := t.Context()
	err := errors.Join(
		device.LIDs.PutLIDMapping(ctx, lid, number),
		device.MsgSecrets.PutMessageSecret(ctx, lid, lid, "A", []byte("0123456789abcdef0123456789abcdef")),
		device.PrivacyTokens.PutPrivacyTokens(ctx, store.PrivacyToken{User: lid, Token: []byte("token"), Timestamp: time.Now()}),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []types.JID{lid, number} {
		secret, sender, err := device.MsgSecrets.GetMessageSecret(ctx, address, address, "A")
		if err != nil || len(secret) != 32 || sender != lid {
			t.Errorf("%v: %v of %v, %v", address, secret, sender, err)
		}
		if token, err := device.PrivacyTokens.GetPrivacyToken(ctx, address); err != nil || token == nil {
			t.Errorf("%v: %v, %v", address, token, err)
		}
	}
	if secret, _, err := device.MsgSecrets.GetMessageSecret(ctx, number, number, "B"); err != nil || secret != nil {
		t.Errorf("of another message: %v, %v", secret, err)
	}
}

// Deleting a device, by itself or by its key, deletes all that is of it from every table, and nothing of its neighbour.
func TestDeletion(t *testing.T) {
	for name, remove := range map[string]func(context.Context, *Store, *store.Device) error{
		"by itself":  func(ctx context.Context, _ *Store, device *store.Device) error { return device.Delete(ctx) },
		"by its key": func(ctx context.Context, s *Store, _ *store.Device) error { return s.Forget(ctx, "A.1") },
	} {
		t.Run(name, func(t *testing.T) {
			d := fresh(t)
			s := d.prepared()
			device, neighbour := paired(t, s, "A.1", "551:1@s.whatsapp.net"), paired(t, s, "B.1", "552:1@s.whatsapp.net")
			fill(t, device)
			fill(t, neighbour)
			before := d.rows()
			if err := remove(t.Context(), s, device); err != nil {
				t.Fatal(err)
			}
			for table, rows := range d.rows() {
				if before[table] != 0 && rows*2 != before[table] {
					t.Errorf("%s: %d of %d rows are left", table, rows, before[table])
				}
			}
			if found, err := s.Device(t.Context(), "A.1"); found != nil || err != nil {
				t.Errorf("found %v, %v", found, err)
			}
		})
	}
}

// Every table with rows of a device loses them with it: also one that a later whatsmeow adds.
func TestEveryTableIsKeyed(t *testing.T) {
	d := fresh(t)
	d.prepared()
	if forgotten := d.count(`
		select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid and c.relkind = 'r'
		where c.relnamespace = 'machine'::regnamespace and a.attname = 'our_jid' and not exists (
			select from pg_constraint f where f.conrelid = c.oid and f.contype = 'f' and f.confdeltype = 'c')
	`); forgotten != 0 {
		t.Errorf("%d tables keep rows of devices that are gone", forgotten)
	}
}

// fill writes something of a device into as many tables as there are ways to.
func fill(t *testing.T, device *store.Device) {
	t.Helper()
	ctx := t.Context()
	_, preKeys := device.PreKeys.GetOrGenPreKeys(ctx, 2)
	_, _, contact := device.Contacts.PutPushName(ctx, number, "Ana")
	err := errors.Join(
		preKeys, contact,
		device.Sessions.PutSession(ctx, "1.1:0", []byte("x")),
		device.Identities.PutIdentity(ctx, "1.1:0", [32]byte{}),
		device.SenderKeys.PutSenderKey(ctx, "g", "u", []byte("x")),
		device.AppStateKeys.PutAppStateSyncKey(ctx, []byte("k"), store.AppStateSyncKey{Data: []byte("x"), Fingerprint: []byte("x")}),
		device.AppState.PutAppStateVersion(ctx, "regular", 1, [128]byte{}),
		device.ChatSettings.PutPinned(ctx, number, true),
		device.MsgSecrets.PutMessageSecret(ctx, number, number, "A", make([]byte, 32)),
		device.PrivacyTokens.PutPrivacyTokens(ctx, store.PrivacyToken{User: lid, Token: []byte("x"), Timestamp: time.Now()}),
		device.EventBuffer.PutBufferedEvent(ctx, [32]byte{1}, []byte("x"), time.Now()),
		device.EventBuffer.AddOutgoingEvent(ctx, number, "A", "wa", []byte("x")),
		device.LIDs.PutLIDMapping(ctx, lid, number),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func (d *database) rows() map[string]int {
	d.t.Helper()
	found, err := d.admin.Query(d.t.Context(), "select tablename from pg_tables where schemaname = 'machine' and tablename not like '%version%'")
	if err != nil {
		d.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	rows := map[string]int{}
	for _, table := range tables {
		rows[table] = d.count("select count(*) from machine." + pgx.Identifier{table}.Sanitize())
	}
	return rows
}

// What goes before a frame is committed to the disk; what is decrypted need not be.
func TestDurability(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	device := paired(t, s, "A.1", "551:1@s.whatsapp.net")
	asked := func(ctx context.Context) (setting string) {
		if err := s.db.QueryRow(ctx, "show synchronous_commit").Scan(&setting); err != nil {
			t.Fatal(err)
		}
		return setting
	}
	var inside string
	look := func(ctx context.Context) error { inside = asked(ctx); return nil }
	if err := commit(t.Context(), s.db, look); err != nil || inside != "on" {
		t.Errorf("of a send: %q, %v", inside, err)
	}
	err := device.EventBuffer.DoDecryptionTxn(t.Context(), func(ctx context.Context) error { return commit(ctx, s.db, look) })
	if err != nil || inside != "off" {
		t.Errorf("of a decryption: %q, %v", inside, err)
	}
	if setting := asked(t.Context()); setting != "off" {
		t.Errorf("it stays %q", setting)
	}
	sessions := device.Sessions.(turningSessions).SessionStore
	for name, part := range map[string]any{"sessions": sessions, "sender keys": device.SenderKeys, "keys": device.PreKeys} {
		switch part.(type) {
		case durableSessions, durableSenderKeys, *durablePreKeys:
		default:
			t.Errorf("%s: %T", name, part)
		}
	}
}

// From reading sessions to storing them a send has the ratchets to itself; it gives them back when it is over, too.
func TestTurns(t *testing.T) {
	device := paired(t, fresh(t).prepared(), "A.1", "551:1@s.whatsapp.net")
	decrypt := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return device.EventBuffer.DoDecryptionTxn(ctx, func(context.Context) error { return nil })
	}
	ends := map[string]func(context.Context, func()) error{
		"stored": func(ctx context.Context, _ func()) error {
			return device.Sessions.PutManySessions(ctx, map[string][]byte{"552:0": []byte("x")})
		},
		"given up": func(_ context.Context, end func()) error { end(); return nil },
	}
	for name, over := range ends {
		ctx, end := ForSend(t.Context())
		if _, err := device.Sessions.GetManySessions(ctx, []string{"552:0"}); err != nil {
			t.Fatal(err)
		}
		if err := decrypt(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: a decryption meanwhile: %v", name, err)
		}
		if err := over(ctx, end); err != nil {
			t.Fatal(err)
		}
		if err := device.EventBuffer.DoDecryptionTxn(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Errorf("%s: a decryption afterwards: %v", name, err)
		}
		end()
	}
}

// The retry store is swept at most hourly, not at every send.
func TestSweeps(t *testing.T) {
	d := fresh(t)
	device := paired(t, d.prepared(), "A.1", "551:1@s.whatsapp.net")
	if err := device.EventBuffer.DeleteOldOutgoingEvents(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.as("alter schema machine owner to postgres") // a second sweep would err
	if err := device.EventBuffer.DeleteOldOutgoingEvents(t.Context()); err != nil {
		t.Errorf("it swept again: %v", err)
	}
}

// A store whose server is away waits for it, for as long as its caller does, and says then what it waited for; nobody's
// connection is broken off for it.
func TestWaiting(t *testing.T) {
	d := fresh(t)
	paired(t, d.prepared(), "A.1", "551:1@s.whatsapp.net")
	gate := newProxy(t, d)
	s, err := Open(gate.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*connectPause)
	defer cancel()
	faults := 0
	_, err = s.Device(WithFault(ctx, func(error) { faults++ }), "A.1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connect") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	type found struct {
		device *store.Device
		err    error
	}
	answer := make(chan found, 1)
	go func() {
		device, err := s.Device(WithFault(t.Context(), func(error) { faults++ }), "A.1")
		answer <- found{device, err}
	}()
	gate.open()
	select {
	case got := <-answer:
		if got.err != nil || got.device == nil || faults != 0 {
			t.Errorf("%v, %v, %d faults", got.device, got.err, faults)
		}
	case <-time.After(patience):
		t.Error("it waits for ever")
	}
}

// proxy is the way to the database, closed at first.
type proxy struct {
	listener net.Listener
	dsn      string
	isOpen   atomic.Bool
}

func newProxy(t *testing.T, d *database) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	config := d.admin.Config()
	network, target := pgconn.NetworkAddress(config.Host, config.Port)
	p := &proxy{listener: listener, dsn: fmt.Sprintf(
		"host=127.0.0.1 port=%d dbname=%s user=%s password=secret sslmode=disable options='-c role=%s'",
		listener.Addr().(*net.TCPAddr).Port, config.Database, config.User, d.role,
	)}
	go p.serve(network, target)
	return p
}

func (p *proxy) serve(network, target string) {
	for {
		here, err := p.listener.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial(network, target)
		if err != nil || !p.isOpen.Load() {
			_ = here.Close()
			continue
		}
		go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
		go func() { _, _ = io.Copy(here, there); _ = here.Close() }()
	}
}

func (p *proxy) open() { p.isOpen.Store(true) }

// Connections never exceed their bound, whatever is opened, fails and is closed, and however many ask at once.
func TestConnections(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	paired(t, s, "A.1", "551:1@s.whatsapp.net")
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			key := "A.1"
			if i%2 == 1 {
				key = fmt.Sprint("none.", i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7+1)*patience/7)
			defer cancel()
			if device, err := s.Device(ctx, key); err != nil || (device == nil) != (i%2 == 1) {
				t.Errorf("%s: %v, %v", key, device, err)
			}
			_ = s.NewDevice(key)
		})
	}
	all.Wait()
	if open := d.count("select count(*) from pg_stat_activity where application_name = 'tomada-machine'"); open > connectionsMax {
		t.Errorf("%d connections", open)
	}
}

// What is done at once by more devices than there are connections gets done: nobody holds one and waits for another.
func TestNoDeadlock(t *testing.T) {
	d := fresh(t)
	s := d.prepared()
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 4 * connectionsMax {
		device := paired(t, s, fmt.Sprint("K.", i), fmt.Sprintf("55%d:1@s.whatsapp.net", i))
		for part := range 4 {
			all.Go(func() {
				_, preKeys := device.PreKeys.GetOrGenPreKeys(ctx, 20)
				err := errors.Join(preKeys, device.EventBuffer.DoDecryptionTxn(ctx, func(ctx context.Context) error {
					return errors.Join(
						device.Sessions.PutSession(ctx, fmt.Sprint(part, ".1:0"), []byte("x")),
						device.LIDs.PutLIDMapping(ctx, types.NewJID(fmt.Sprint(part), types.HiddenUserServer), number),
					)
				}), device.Sessions.PutManySessions(ctx, map[string][]byte{"9.1:0": {1}}))
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
}

// An address that is none is refused without showing the password that may be in it.
func TestAnAddressThatIsNone(t *testing.T) {
	if _, err := Open("postgres://user:hunter2@host:notaport/db"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
