package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// connectPause is the time between two tries to reach a database that is not there.
const connectPause = 100 * time.Millisecond

type faultKey struct{}

// WithFault returns a context under which an error of the store calls fault before its caller sees it.
//
// It is how a store that errs does not become an acknowledgement: whatsmeow acknowledges a message that it could not
// decrypt, whatever the reason, unless the connection's context is cancelled already (message.go, decryptMessages). So
// the connection's fault cancels that context.
func WithFault(ctx context.Context, fault func(error)) context.Context {
	return context.WithValue(ctx, faultKey{}, fault)
}

// report calls the fault of a context and passes the error on. A context that has ended is no fault of the store's.
func report(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if fault, ok := ctx.Value(faultKey{}).(func(error)); ok {
		fault(err)
	}
	return err
}

// connector connects for as long as its caller waits: a database that is away, restarting or full of connections is
// no error of the store, it is a store that takes longer.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	for {
		conn, err := c.Connector.Connect(ctx)
		if err == nil {
			return &connection{Conn: conn.(*stdlib.Conn)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(connectPause):
		}
	}
}

// connection reports every error of a statement to the context that the statement was given.
type connection struct {
	*stdlib.Conn
	inTransaction bool
	proven        bool // a statement has succeeded on it
}

func (c *connection) seen(ctx context.Context, err error) error {
	if err == nil {
		c.proven = true
		return nil
	}
	if c.proven && !c.inTransaction && errors.Is(err, driver.ErrBadConn) {
		return err // nothing was done: database/sql tries again on another connection, at last on a fresh one
	}
	return report(ctx, err)
}

func (c *connection) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	begun, err := c.Conn.BeginTx(ctx, options)
	if err != nil {
		return nil, c.seen(ctx, err)
	}
	c.inTransaction = true
	return &transaction{begun, ctx, c}, nil
}

func (c *connection) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	prepared, err := c.Conn.PrepareContext(ctx, query)
	return prepared, c.seen(ctx, err)
}

func (c *connection) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.ExecContext(ctx, query, args)
	return result, c.seen(ctx, err)
}

func (c *connection) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	found, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, c.seen(ctx, err)
	}
	c.proven = true
	return &rows{found, ctx}, nil
}

type transaction struct {
	driver.Tx
	ctx  context.Context
	conn *connection
}

func (t *transaction) Commit() error {
	t.conn.inTransaction = false
	return report(t.ctx, t.Tx.Commit())
}

func (t *transaction) Rollback() error {
	t.conn.inTransaction = false
	return t.Tx.Rollback()
}

type rows struct {
	driver.Rows
	ctx context.Context
}

func (r *rows) Next(values []driver.Value) error {
	err := r.Rows.Next(values)
	if errors.Is(err, io.EOF) {
		return err
	}
	return report(r.ctx, err)
}
