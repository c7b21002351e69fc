// Calls every kind of function of the extension through pgx.
//
// Run by test/drivers/run with PORT, DATABASE, ROUTE (direct or pgbouncer) and NAMED (1 where
// named prepared statements work). Prints a line for each case.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const unknown = "00000000-0000-8000-8000-000000000000"

var (
	ctx   = context.Background()
	route = os.Getenv("ROUTE")
)

// Case is a connection and a queue of its own. A helper that fails panics: the case ends.
type Case struct {
	url, queue string
	conn       *pgx.Conn
}

type message struct {
	ID         int64
	Receipt    string
	Attempt    int32
	Payload    string
	LastError  *string
	Headers    *string
	LeaseUntil time.Time
}

func open(mode, queue string) *Case {
	c := &Case{queue: queue, url: fmt.Sprintf(
		"postgresql://app@127.0.0.1:%s/%s?default_query_exec_mode=%s", os.Getenv("PORT"), os.Getenv("DATABASE"), mode)}
	conn, err := pgx.Connect(ctx, c.url)
	must(err)
	c.conn = conn
	return c
}

func (c *Case) other() *Case {
	conn, err := pgx.Connect(ctx, c.url)
	must(err)
	return &Case{url: c.url, queue: c.queue, conn: conn}
}

func (c *Case) exec(sql string, args ...any) {
	_, err := c.conn.Exec(ctx, sql, args...)
	must(err)
}

func value[T any](c *Case, sql string, args ...any) (result T) {
	must(c.conn.QueryRow(ctx, sql, args...).Scan(&result))
	return
}

func (c *Case) enqueue(payload string) int64 {
	return value[int64](c, "SELECT queue.enqueue($1, $2)", c.queue, payload)
}

func (c *Case) take(queue string, count int, wait time.Duration) []message {
	rows, err := c.conn.Query(ctx,
		"SELECT id, receipt::text, attempt, payload::text, last_error, headers::text, lease_until"+
			" FROM queue.dequeue($1, $2, wait => $3)", queue, count, wait)
	must(err)
	messages, err := pgx.CollectRows(rows, pgx.RowToStructByPos[message])
	must(err)
	return messages
}

func (c *Case) dequeue(count int) []message { return c.take(c.queue, count, 0) }

func (c *Case) one(wait time.Duration) message {
	messages := c.take(c.queue, 1, wait)
	equal(len(messages), 1)
	return messages[0]
}

func (c *Case) count(where string) int64 {
	return value[int64](c, "SELECT count(*) FROM "+pgx.Identifier{"queues", c.queue}.Sanitize()+" "+where)
}

func (c *Case) worked() int64 {
	return value[int64](c, "SELECT count(*) FROM work WHERE queue = $1", c.queue)
}

func (c *Case) transaction(end string, work func()) {
	c.exec("BEGIN")
	work()
	c.exec(end)
}

func (c *Case) fails(state, sql string, args ...any) {
	_, err := c.conn.Exec(ctx, sql, args...)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != state {
		panic(fmt.Errorf("expected %s, got %v: %s", state, err, sql))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal[T comparable](got, wanted T) {
	if got != wanted {
		panic(fmt.Errorf("got %v, wanted %v", got, wanted))
	}
}

var cases = []struct {
	name string
	run  func(c *Case)
}{
	{"the casts of the documentation", func(c *Case) {
		must(produce(ctx, c.conn, c.queue))
		equal(c.count("WHERE state = 'delayed'"), 2)
		equal(c.count(`WHERE body IN ('\x00ff', '\x01')`), 3)
		bodies, err := consume(ctx, c.conn, c.queue)
		must(err)
		equal(bodies, 3)
		equal(c.count(""), 2)
	}},
	{"structs and maps", func(c *Case) {
		mode := c.conn.Config().DefaultQueryExecMode
		_, err := c.conn.Exec(ctx, "SELECT queue.enqueue($1, $2)", c.queue, map[string]int{"n": 1})
		equal(err == nil, mode != pgx.QueryExecModeExec && mode != pgx.QueryExecModeSimpleProtocol)
	}},
	{"an enqueue rolled back leaves nothing", func(c *Case) {
		c.transaction("ROLLBACK", func() { c.enqueue(`{"n": 1}`) })
		c.transaction("COMMIT", func() {
			c.enqueue(`{"n": 2}`)
			equal(len(c.dequeue(1)), 0) // never to the transaction that enqueued it
		})
		equal(c.one(0).Payload, `{"n": 2}`)
	}},
	{"the same statement twenty times", func(c *Case) {
		for n := 0; n < 20; n++ {
			c.enqueue(fmt.Sprint(n))
		}
		for n := 0; n < 20; n++ {
			m := c.one(0)
			equal(m.Payload, fmt.Sprint(n))
			c.exec("SELECT queue.ack($1::uuid)", m.Receipt)
		}
		equal(c.count(""), 0)
	}},
	{"the ack commits with the work", func(c *Case) {
		sent := c.enqueue(`{"n": 1}`)
		m := c.one(0)
		equal(m.ID, sent)
		work := func() {
			c.exec("INSERT INTO work VALUES ($1, $2)", c.queue, m.ID)
			c.exec("SELECT queue.ack($1::uuid)", m.Receipt)
		}
		c.transaction("ROLLBACK", work)
		equal(c.worked(), 0)
		equal(len(c.dequeue(1)), 0) // the lease outlived the rollback
		c.transaction("COMMIT", work)
		equal(c.worked(), 1)
		equal(c.count(""), 0)
	}},
	{"nack retries until the message is dead", func(c *Case) {
		c.exec("SELECT queue.alter($1, $2)", c.queue, `{"max_attempts": 2}`)
		c.enqueue(`{"n": 1}`)
		m := c.one(0)
		equal(value[string](c, "SELECT queue.nack($1::uuid, $2, $3)", m.Receipt, "first", time.Duration(0)), "retry")
		m = c.one(5 * time.Second)
		equal(m.Attempt, 2)
		equal(*m.LastError, "first")
		equal(value[string](c, "SELECT queue.nack($1::uuid, $2)", m.Receipt, "second"), "dead")
		equal(len(c.dequeue(1)), 0)
		dead := c.take(c.queue+"_dead", 1, 5*time.Second)[0]
		equal(dead.Payload, `{"n": 1}`)
		var headers map[string]struct{ Queue string }
		must(json.Unmarshal([]byte(*dead.Headers), &headers))
		equal(headers["queue.death"].Queue, c.queue)
	}},
	{"release, extend and reject", func(c *Case) {
		c.enqueue(`{"n": 1}`)
		m := c.one(0)
		deadline := value[time.Time](c, "SELECT queue.extend($1::uuid, $2)", m.Receipt, 10*time.Minute)
		equal(deadline.After(m.LeaseUntil), true)
		c.exec("SELECT queue.release($1::uuid)", m.Receipt)
		m = c.one(5 * time.Second)
		equal(m.Attempt, 1)
		c.exec("SELECT queue.reject($1::uuid, $2)", m.Receipt, "no use")
		equal(len(c.dequeue(1)), 0)
		equal(len(c.take(c.queue+"_dead", 1, 5*time.Second)), 1)
	}},
	{"statuses of the batch calls", func(c *Case) {
		c.exec("SELECT queue.enqueue_batch($1, $2::jsonb[])", c.queue, []string{"1", "2", "3"})
		m := c.dequeue(3)
		for _, call := range []struct {
			name    string
			receipt string
		}{{"extend_batch", m[0].Receipt}, {"release_batch", m[0].Receipt}, {"nack_batch", m[1].Receipt}, {"try_ack", m[2].Receipt}} {
			rows, err := c.conn.Query(ctx, "SELECT status FROM queue."+call.name+"($1::uuid[])", []string{call.receipt, unknown})
			must(err)
			statuses, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(err)
			bad := map[string]bool{"lost": true, "invalid": true}
			if bad[statuses[0]] || !bad[statuses[1]] {
				panic(fmt.Errorf("%s: %v", call.name, statuses))
			}
		}
		c.fails("QU001", "SELECT queue.ack_batch($1::uuid[])", []string{unknown})
	}},
	{"a lost lease is QU001", func(c *Case) {
		c.enqueue(`{"n": 1}`)
		m := c.one(0)
		c.exec("SELECT queue.release($1::uuid)", m.Receipt)
		c.transaction("ROLLBACK", func() {
			c.exec("INSERT INTO work VALUES ($1, $2)", c.queue, m.ID)
			c.fails("QU001", "SELECT queue.ack($1::uuid)", m.Receipt)
		})
		equal(c.worked(), 0)
		c.fails("QU001", "SELECT queue.nack($1::uuid, $2)", m.Receipt, "late")
		c.fails("QU001", "SELECT queue.extend($1::uuid, $2)", m.Receipt, time.Second)
	}},
	{"other errors have their SQLSTATE", func(c *Case) {
		c.fails("42704", "SELECT queue.enqueue($1, $2)", "no such queue", "{}")
		c.fails("42710", "SELECT queue.create($1)", c.queue)
		c.fails("22023", "SELECT queue.enqueue($1, $2, delay => $3)", c.queue, "{}", -time.Second)
		c.fails("22023", "SELECT * FROM queue.dequeue($1, $2)", c.queue, 0)
		c.fails("22004", "SELECT queue.enqueue($1, $2)", c.queue, nil)
	}},
	{"dequeue waits", func(c *Case) {
		got := make(chan int)
		go func() {
			other := c.other()
			defer other.conn.Close(ctx)
			got <- len(other.take(c.queue, 1, 5*time.Second))
		}()
		c.enqueue(`{"n": 1}`)
		equal(<-got, 1)
	}},
	{"CALL queue.wait", func(c *Case) {
		equal(len(c.dequeue(1)), 0)
		equal(value[bool](c, "CALL queue.wait($1, $2)", c.queue, time.Duration(0)), false)
		c.enqueue(`{"n": 1}`)
		equal(value[bool](c, "CALL queue.wait($1, $2)", c.queue, 5*time.Second), true)
		c.transaction("ROLLBACK", func() { c.fails("25001", "CALL queue.wait($1, $2)", c.queue, time.Second) })
	}},
	{"INSERT and COPY into the view", func(c *Case) {
		view := pgx.Identifier{"queues", c.queue}
		sent := value[int64](c, "INSERT INTO "+view.Sanitize()+" (payload, key) VALUES ($1, $2) RETURNING id", `{"n": 0}`, "k")
		_, err := c.conn.CopyFrom(ctx, view, []string{"payload"}, pgx.CopyFromRows([][]any{{`{"n": 1}`}, {`{"n": 2}`}}))
		must(err)
		messages := c.dequeue(10)
		equal(len(messages), 3)
		equal(messages[0].ID, sent)
	}},
	{"pop", func(c *Case) {
		c.enqueue(`{"n": 1}`)
		c.transaction("ROLLBACK", func() {
			equal(value[int64](c, "SELECT count(*) FROM queue.pop($1)", c.queue), 1)
		})
		m := c.one(5 * time.Second)
		equal(m.Attempt, 2) // the rollback counts as a failure
		c.exec("SELECT queue.ack($1::uuid)", m.Receipt)
	}},
	{"LISTEN is notified", func(c *Case) {
		if route != "direct" {
			return
		}
		c.exec("LISTEN " + pgx.Identifier{"queue_" + c.queue}.Sanitize())
		other := c.other()
		other.enqueue(`{"n": 1}`)
		other.conn.Close(ctx)
		late, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		note, err := c.conn.WaitForNotification(late)
		must(err)
		equal(note.Channel, "queue_"+c.queue)
		equal(note.Payload, c.queue)
	}},
}

func attempt(mode, queue string, run func(c *Case)) (err error) {
	c := open(mode, queue)
	defer c.conn.Close(ctx)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	c.exec("SELECT queue.create($1)", queue)
	run(c)
	c.exec("SELECT queue.drop($1, true)", queue)
	return nil
}

func main() {
	modes := []string{"cache_describe", "exec", "simple_protocol"}
	if os.Getenv("NAMED") == "1" {
		modes = append(modes, "cache_statement", "describe_exec")
	}
	failed := 0
	for _, mode := range modes {
		for number, test := range cases {
			label := fmt.Sprintf("pgx %s, %s: %s", mode, route, test.name)
			if err := attempt(mode, fmt.Sprintf("pgx %s %s %d", mode, route, number), test.run); err != nil {
				failed++
				fmt.Printf("FAILED %s\n%v\n", label, err)
			} else {
				fmt.Println("ok     " + label)
			}
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}
