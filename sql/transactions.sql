-- Enqueue, dequeue and settle inside everything that a transaction can be.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
\set VERBOSITY terse
SELECT queue.create('t', '{"backoff": "none", "max_attempts": 5}');
SELECT queue.create('audit', '{"backoff": "none"}');
CREATE TABLE orders (id int PRIMARY KEY, amount int);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
    PERFORM queue.enqueue('audit', jsonb_build_object('when', tg_argv[0], 'op', tg_op, 'id', new.id, 'amount', new.amount));
    RETURN new;
END
$$;
CREATE VIEW audited AS SELECT payload->>'when' AS "when", payload->>'op' AS op, payload->>'id' AS id, payload->>'amount' AS amount
FROM queue.pop('audit', 100) ORDER BY id::int, "when", op, amount;

-- a row trigger: rows and messages alike, also of a statement that fails
CREATE TRIGGER after_row AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION audit('row');
INSERT INTO orders SELECT n, n * 10 FROM generate_series(1, 3) n;
INSERT INTO orders VALUES (4, 40), (1, 0);
UPDATE orders SET amount = amount + 1 WHERE id = 2;
SELECT * FROM audited;
COPY orders FROM stdin;
5	50
6	60
\.
SELECT * FROM audited;

-- INSERT ... ON CONFLICT: AFTER triggers tell what was done; BEFORE triggers fire for rows that are not inserted
INSERT INTO orders VALUES (1, 100), (7, 70) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
INSERT INTO orders VALUES (1, 200), (8, 80) ON CONFLICT DO NOTHING;
SELECT * FROM audited;
DROP TRIGGER after_row ON orders;
CREATE TRIGGER before_row BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION audit('before');
INSERT INTO orders VALUES (1, 300), (9, 90) ON CONFLICT DO NOTHING;
SELECT * FROM audited;
DROP TRIGGER before_row ON orders;

-- a deferred constraint trigger enqueues at commit: the row as it is then, and nothing after a rollback
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION audit('commit');
BEGIN;
INSERT INTO orders VALUES (10, 1);
SAVEPOINT one;
INSERT INTO orders VALUES (11, 1);
ROLLBACK TO one;
UPDATE orders SET amount = 2 WHERE id = 10;
SELECT count(*) AS before_commit FROM queues.audit;
COMMIT;
SELECT * FROM audited;
BEGIN;
INSERT INTO orders VALUES (12, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT count(*) AS set_immediate FROM queues.audit;
ROLLBACK;
SELECT count(*) AS rolled_back FROM queues.audit;
-- a commit that fails at its last trigger
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
CREATE CONSTRAINT TRIGGER deferred_too AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (new.amount < 0) EXECUTE FUNCTION refuse();
SELECT queue.enqueue('t', '"work"') IS NOT NULL AS sent;
BEGIN;
SELECT payload, queue.ack(receipt) FROM queue.dequeue('t');
INSERT INTO orders VALUES (13, -1);
COMMIT;
SELECT count(*) AS rolled_back FROM queues.audit;
SELECT payload, attempt, queue.ack(receipt) FROM queue.dequeue('t', wait => '5 s');

-- a procedure that commits in its loop: each round is a transaction of its own
CREATE TABLE done (n int);
CREATE PROCEDURE work_off(INOUT rounds int, INOUT failed int, keep boolean) LANGUAGE plpgsql AS
$$
DECLARE
    m queue.message;
BEGIN
    LOOP
        SELECT * INTO m FROM queue.dequeue('t');
        EXIT WHEN m.id IS NULL;
        rounds := rounds + 1;
        COMMIT;
        INSERT INTO done VALUES (m.payload::int);
        PERFORM queue.ack(m.receipt);
        IF m.payload::int % 3 = 0 AND m.attempt = 1 THEN
            ROLLBACK;
            failed := failed + 1;
            PERFORM queue.nack(m.receipt, 'every third');
        END IF;
        IF keep OR rounds % 2 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END
$$;
SELECT count(queue.enqueue('t', to_jsonb(n))) FROM generate_series(1, 9) n;
CALL work_off(0, 0, true);
SELECT count(*), count(DISTINCT n), min(n), max(n) FROM done;
SELECT count(*) AS left FROM queues.t;
-- in a transaction block it may not commit, and nothing has happened but a failed attempt
SELECT queue.enqueue('t', '10') IS NOT NULL AS sent;
BEGIN;
CALL work_off(0, 0, true);
ROLLBACK;
SELECT payload, attempt, last_error, queue.ack(receipt) FROM queue.dequeue('t', wait => '5 s');
-- DO, with a chain, in another isolation level
SELECT count(queue.enqueue('t', to_jsonb(n))) FROM generate_series(1, 3) n;
TRUNCATE done;
DO
$$
DECLARE
    m queue.message;
BEGIN
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
    FOR i IN 1 .. 3 LOOP
        SELECT * INTO m FROM queue.dequeue('t');
        INSERT INTO done VALUES (m.payload::int);
        PERFORM queue.ack(m.receipt);
        COMMIT AND CHAIN;
    END LOOP;
END
$$;
SELECT count(*), sum(n) FROM done;
SELECT count(*) AS left FROM queues.t;

-- a loop over a dequeue that commits: the rows were taken at its start, and stay its own
SELECT count(queue.enqueue('t', to_jsonb(n))) FROM generate_series(1, 100) n;
TRUNCATE done;
DO
$$
DECLARE
    m queue.message;
BEGIN
    FOR m IN SELECT * FROM queue.dequeue('t', 60) LOOP
        INSERT INTO done VALUES (m.payload::int);
        PERFORM queue.ack(m.receipt);
        COMMIT;
    END LOOP;
END
$$;
SELECT count(*), count(DISTINCT n) FROM done;
SELECT count(*) AS left FROM queues.t;

-- cursors: what was fetched, and what WITH HOLD keeps, is leased
BEGIN;
DECLARE plain CURSOR FOR SELECT payload, receipt FROM queue.dequeue('t', 5);
FETCH 1 FROM plain \gset
CLOSE plain;
COMMIT;
SELECT count(*) AS leased FROM queue.leases WHERE queue = 't';
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT receipt FROM queue.dequeue('t', 5);
COMMIT;
SELECT count(*) AS leased FROM queue.leases WHERE queue = 't';
FETCH 1 FROM held \gset
SELECT queue.ack(:'receipt');
BEGIN;
FETCH 1 FROM held \gset
SELECT queue.ack(:'receipt');
ROLLBACK;
SELECT queue.ack(:'receipt');
CLOSE held;
SELECT count(*) AS leased FROM queue.leases WHERE queue = 't';
-- a rolled back one holds nothing
SELECT queue.enqueue('audit', '"held"') IS NOT NULL AS sent;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT receipt FROM queue.dequeue('audit', 5);
FETCH 1 FROM held \gset
ROLLBACK;
FETCH 1 FROM held;
SELECT queue.ack(:'receipt');
-- peeking, held over deletions
BEGIN;
DECLARE peek CURSOR WITH HOLD FOR SELECT payload FROM queues.t ORDER BY id;
COMMIT;
SELECT queue.purge('t', '{"states": ["ready", "failed", "leased", "delayed"]}') > 0 AS purged;
FETCH 2 FROM peek;
CLOSE peek;
SELECT count(*) AS left FROM queues.t;

-- read-only transactions may look, and nothing else
SELECT queue.enqueue('t', '"stays"') IS NOT NULL AS sent;
SELECT receipt AS r FROM queue.dequeue('t') \gset
BEGIN READ ONLY;
SELECT payload, state FROM queues.t;
SELECT leased FROM queue.stats WHERE queue = 't';
\set ON_ERROR_ROLLBACK on
SELECT queue.enqueue('t', '1');
SELECT queue.enqueue_batch('t', '{1}');
INSERT INTO queues.t (payload) VALUES ('1');
SELECT * FROM queue.dequeue('t');
SELECT * FROM queue.pop('t');
SELECT queue.ack(:'r');
SELECT queue.ack_batch(ARRAY[:'r']::uuid[]);
SELECT * FROM queue.try_ack(ARRAY[:'r']::uuid[]);
SELECT queue.nack(:'r');
SELECT queue.reject(:'r');
SELECT queue.release(:'r');
SELECT queue.extend(:'r');
SELECT queue.purge('t');
SELECT queue.cancel('t', 1);
DELETE FROM queues.t;
SELECT queue.create('new');
SELECT queue.alter('t', '{"max_attempts": 1}');
SELECT queue.pause('t');
SELECT queue.drop('t', true);
\unset ON_ERROR_ROLLBACK
COMMIT;
SET default_transaction_read_only = on;
CALL queue.wait('t', '1 s');
SELECT queue.ack(:'r');
RESET default_transaction_read_only;
SELECT queue.ack(:'r');

-- savepoints: a hundred deep, each level enqueues; every tenth is taken back with all below it, and enqueues again
SELECT count(*) AS left FROM queues.t;
CREATE FUNCTION nest(depth int) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
    PERFORM queue.enqueue('t', to_jsonb(depth));
    IF depth < 100 THEN
        PERFORM nest(depth + 1);
    END IF;
    IF depth % 10 = 0 THEN
        RAISE 'back to %', depth - 1;
    END IF;
EXCEPTION WHEN raise_exception THEN
    PERFORM queue.enqueue('t', to_jsonb(-depth));
END
$$;
SELECT nest(1);
SELECT string_agg(payload::text, ' ' ORDER BY payload::int) FROM queue.pop('t', 1000);

DROP TABLE orders, done;
DROP VIEW audited;
DROP FUNCTION audit, refuse, nest;
DROP PROCEDURE work_off;
SELECT queue.drop('t', true), queue.drop('audit', true);
SELECT * FROM queue.check();
