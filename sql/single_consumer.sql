-- One consumer at a time: who that is, and who takes over.
SET client_min_messages = error;
SELECT queue.create('s', '{"single_active_consumer": true, "backoff": "none", "lease_timeout": "30 s", "max_attempts": 0}');
-- Receipts of what is held, by payload.
CREATE TEMPORARY TABLE held (payload text, receipt uuid);
-- Dequeues as a consumer, and shows what came.
CREATE FUNCTION take(as_whom text, n int = 1, lease interval = NULL, wait interval = NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m record; got text := '';
BEGIN
    FOR m IN SELECT * FROM queue.dequeue('s', n, lease, wait, jsonb_build_object('consumer', as_whom)) LOOP
        DELETE FROM held WHERE payload = m.payload #>> '{}';
        INSERT INTO held VALUES (m.payload #>> '{}', m.receipt);
        got := concat_ws(' ', nullif(got, ''), m.payload #>> '{}');
    END LOOP;
    RETURN got;
END $$;
CREATE FUNCTION receipt(p text) RETURNS uuid LANGUAGE sql AS $$ SELECT receipt FROM held WHERE payload = p $$;
CREATE FUNCTION send(VARIADIC names text[]) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(queue.enqueue('s', to_jsonb(n))) FROM unnest(names) n $$;
CREATE VIEW active AS SELECT active_consumer, active_until IS NULL AS never FROM queue.stats WHERE queue = 's';

-- who dequeues first is active, whatever comes of it
TABLE active;
SELECT take('a');
TABLE active;
SELECT send('1', '2', '3', '4', '5', '6', '7', '8');
SELECT take('b'), take(NULL), take('a');
SELECT count(*) FROM queue.pop('s');
-- who only looks is nobody's hindrance, nor hindered
SELECT count(*) FROM queues.s;
-- nothing of this session: it dequeued as itself last
CALL queue.wait('s', '0 s');
SELECT take('a');
CALL queue.wait('s', '0 s');
SELECT take('b');
CALL queue.wait('s', '0 s');

-- another one takes over when the last look and the leases are over
SELECT queue.clock_advance('20 s');
SELECT take('a', lease => '5 s');
SELECT queue.clock_advance('8 s');
SELECT take('b');
SELECT queue.extend(receipt('1'), '60 s') IS NOT NULL AS extended;
SELECT queue.clock_advance('59 s');
SELECT take('b'), take('b', wait => '10 ms');
SELECT queue.clock_advance('2 s');
TABLE active;
SELECT take('b', 1, wait => '5 s') <> '' AS taken;
TABLE active;
-- what had run out is lost to the former, though nobody has it
SELECT status FROM queue.try_ack(ARRAY[(SELECT receipt FROM held ORDER BY payload LIMIT 1)]);
SELECT take('a');

-- a pop that is rolled back: the session stays active
SELECT queue.drop('s', true);
SELECT queue.create('s', '{"single_active_consumer": true, "backoff": "none", "lease_timeout": "30 s", "max_attempts": 0}');
SELECT send('p1', 'p2');
BEGIN;
SELECT payload FROM queue.pop('s');
ROLLBACK;
SELECT active_consumer LIKE 'pid %' AS this_session FROM active;
SELECT take('a');
SELECT count(*) > 0 AS taken FROM queue.dequeue('s', 2, wait => '5 s');

-- an ack that is prepared holds the place, however long
SELECT queue.drop('s', true);
SELECT queue.create('s', '{"single_active_consumer": true, "backoff": "none", "lease_timeout": "30 s", "max_attempts": 0}');
SELECT send('t1', 't2');
SELECT receipt AS t1 FROM queue.dequeue('s', options => '{"consumer": "a"}') \gset
BEGIN;
SELECT queue.ack(:'t1');
PREPARE TRANSACTION 'ack';
SELECT queue.clock_advance('101 s');
SELECT take('b');
SELECT take('a');
SELECT queue.ack(receipt('t2'));
SELECT queue.clock_advance('101 s');
SELECT take('b');
COMMIT PREPARED 'ack';
SELECT take('b');
TABLE active;

-- set and reset: leases of others end first
SELECT queue.alter('s', '{"single_active_consumer": false}');
TABLE active;
SELECT send('u1', 'u2', 'u3');
SELECT take('a'), take('b');
SELECT queue.alter('s', '{"single_active_consumer": true}');
TABLE active;
SELECT take('a'), take('b');
SELECT queue.ack(receipt('u1'));
SELECT take('a'), take('b');
SELECT queue.release(receipt('u2'));
SELECT take('a', 2), take('b');
TABLE active;
SELECT queue.alter('s', '{"max_attempts": 3}');
SELECT take('b');
TABLE active;
SELECT queue.ack_batch(ARRAY[receipt('u2'), receipt('u3')]);

-- errors
SELECT queue.alter('s', '{"single_active_consumer": "perhaps"}');
SELECT name, type, "default", available FROM queue.options WHERE name = 'single_active_consumer';

-- ordered as well
SELECT queue.drop('s', true);
SELECT queue.create('s', '{"single_active_consumer": true, "ordered": true, "backoff": "none", "max_attempts": 0}');
SELECT count(queue.enqueue('s', to_jsonb(n), key => left(n, 1))) FROM unnest(ARRAY['a1', 'a2', 'b1']) n;
SELECT take('a', 2), take('b');
SELECT queue.ack(receipt('a1'));
SELECT take('b');
SELECT receipt('a2') AS a2 \gset
SELECT queue.clock_advance('31 s');
SELECT take('b', 2, wait => '5 s') <> '' AS taken;
SELECT status FROM queue.try_ack(ARRAY[:'a2'::uuid]);
SELECT queue.drop('s', true);
DROP VIEW active;
DROP FUNCTION take, receipt, send;
