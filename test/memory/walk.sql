-- A walk over every function of the extension, and over what the worker does, in
-- one session; at the end it looks whether it has called them all. What the
-- functions return is for other tests to look at: this one wants memory touched.
\set VERBOSITY terse
SET client_min_messages = error;
CREATE EXTENSION queue;
-- Until the condition holds: what the worker is about to do.
CREATE PROCEDURE await(condition text) LANGUAGE plpgsql AS $$
DECLARE
	holds boolean;
BEGIN
	FOR i IN 1 .. 2400 LOOP
		EXECUTE 'SELECT ' || condition INTO holds;
		IF holds THEN
			RETURN;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
	RAISE 'waited in vain for: %', condition;
END $$;
-- Fails unless the statement raises that SQLSTATE.
CREATE FUNCTION raises(state text, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		IF SQLSTATE <> state THEN
			RAISE '% raised %: %', statement, SQLSTATE, SQLERRM;
		END IF;
		RETURN;
	END;
	RAISE '% did not raise %', statement, state;
END $$;

-- queues
SELECT queue.create('w', '{"segment_size": "64kB", "backoff": "fixed", "backoff_base": "10 s", "backoff_jitter": 0, "max_attempts": 3, "lease_timeout": "1 h"}');
SELECT queue.create('Alone', '{"dead_letter": ""}');
SELECT queue.alter('w', '{"message_ttl": "10 h", "notify": true}');
SELECT raises('42710', $$SELECT queue.create('w')$$), raises('22023', $$SELECT queue.create('x', '{"colour": 1}')$$);
SELECT queue.pause('w', 'both', 'a walk');
SELECT raises('QU002', $$SELECT queue.enqueue('w', '1')$$);
SELECT queue.resume('w', 'both');

-- producing: JSON and bytes, small, compressed and out of line; ways to end
LISTEN queue_w;
SELECT queue.enqueue('w', '{"n": 1}', key => 'k', headers => '{"h": "v"}', delay => '0 s', ttl => '1 h');
SELECT queue.enqueue_bytes('w', '\x00ff', headers => '{}', deliver_at => now());
SELECT queue.enqueue('w', to_jsonb(repeat('x', 20000)));
SELECT queue.enqueue_bytes('w', (SELECT string_agg(sha512(n::text::bytea), '') FROM generate_series(1, 400) n), options => '{"max_attempts": 2}');
SELECT * FROM queue.enqueue_unique('w', '2');
SELECT * FROM queue.enqueue_unique('w', '2', dedup_key => 'd', options => '{"unique_key": "u", "on_conflict": "debounce"}'), generate_series(1, 3);
SELECT queue.enqueue_batch('w', '{1, 2, 3}', dedup_keys => '{d, e, e}'), queue.once('walk', 'm');
SELECT queue.enqueue_batch('w', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 1500) n));
SELECT queue.enqueue_batch('w', '{1, 2}', keys => '{a, NULL}', headers => ARRAY['{"h": 1}', NULL]::jsonb[], delay => '1 s');
SELECT queue.enqueue_bytes_batch('w', '{"\\x01", "\\x"}', keys => '{NULL, b}');
INSERT INTO queues.w (payload, key, headers, delay) VALUES ('3', 'k', '{"h": 1}', '1 h'), ('4', NULL, NULL, NULL);
INSERT INTO queues.w (body, ttl) VALUES ('\x05', '1 h') RETURNING *;
COPY queues.w (payload, headers) FROM STDIN;
{"n": 6}	{"from": "copy"}
{"n": 7}	\N
\.
BEGIN;
SELECT queue.enqueue('w', '"undone"');
ROLLBACK;
BEGIN;
SELECT queue.enqueue('w', '"kept"');
SAVEPOINT a;
SELECT queue.enqueue('w', '"undone"');
SAVEPOINT b;
SELECT queue.enqueue('w', '"undone too"');
RELEASE b;
ROLLBACK TO a;
COMMIT;
BEGIN;
SELECT queue.enqueue('w', '"prepared"');
PREPARE TRANSACTION 'kept';
BEGIN;
SELECT queue.enqueue('w', '"prepared"');
PREPARE TRANSACTION 'undone';
COMMIT PREPARED 'kept';
ROLLBACK PREPARED 'undone';

-- consuming
SELECT * FROM queue.dequeue('w', 5, '2 h', options => '{"consumer": "walker", "max_bytes": 100000}');
SELECT * FROM queue.pop('w', 3);
CALL queue.wait('w', '10 ms');
CALL queue.wait('Alone', '10 ms');
SELECT * FROM queue.dequeue('Alone', wait => '10 ms');
SELECT queue.ack(receipt) FROM queue.dequeue('w');
SELECT queue.ack_batch(ARRAY(SELECT receipt FROM queue.dequeue('w', 300)));
SELECT queue.try_ack(ARRAY(SELECT receipt FROM queue.dequeue('w', 2)) || gen_random_uuid());
SELECT queue.nack(receipt, 'broken') FROM queue.dequeue('w');
SELECT queue.nack(receipt, repeat('broken ', 5000), '5 s') FROM queue.dequeue('w');
SELECT queue.nack_batch(ARRAY(SELECT receipt FROM queue.dequeue('w', 10)), 'broken');
SELECT queue.reject(receipt, 'poison') FROM queue.dequeue('w');
SELECT queue.release(receipt) FROM queue.dequeue('w');
SELECT queue.release_batch(ARRAY(SELECT receipt FROM queue.dequeue('w', 3)), '5 s');
SELECT queue.extend(receipt, '3 h') FROM queue.dequeue('w');
SELECT queue.extend_batch(ARRAY(SELECT receipt FROM queue.dequeue('w', 3)), '3 h');
SELECT raises('QU001', 'SELECT queue.ack(gen_random_uuid())');
SELECT * FROM queue.dequeue('w', options => '{"key": "none"}');
-- in a transaction of the taker: rolled back, in a savepoint, prepared
BEGIN;
SELECT count(*) FROM queue.dequeue('w', 5);
ROLLBACK;
BEGIN;
SELECT receipt AS r FROM queue.dequeue('w') \gset
SAVEPOINT a;
SELECT queue.ack(:'r');
ROLLBACK TO a;
SELECT queue.nack(:'r', 'after all');
COMMIT;
SELECT receipt AS r FROM queue.dequeue('w') \gset
SELECT receipt AS s FROM queue.dequeue('w') \gset
BEGIN;
SELECT queue.ack(:'r');
PREPARE TRANSACTION 'acked';
BEGIN;
SELECT queue.nack(:'s', 'prepared');
PREPARE TRANSACTION 'nacked';
SELECT count(*) FROM queue.leases;
COMMIT PREPARED 'acked';
ROLLBACK PREPARED 'nacked';

-- failures until the end, deadlines, expiry: what the worker writes
SELECT queue.clock_advance('3 h');
SELECT count(*) FROM queue.dequeue('w', 1000, '1 s', wait => '5 s');
SELECT queue.clock_advance('2 s');
CALL await('NOT EXISTS (SELECT FROM queue.leases)');
SELECT queue.clock_advance('11 s');
SELECT count(queue.nack(receipt, 'at last')) FROM queue.dequeue('w', 1000, wait => '5 s');
SELECT queue.clock_advance('11 s');
SELECT count(queue.nack(receipt, 'at last')) FROM queue.dequeue('w', 1000, wait => '5 s');
SELECT queue.enqueue('Alone', '1', ttl => '1 s');
SELECT queue.clock_advance('11 h');
CALL await('NOT EXISTS (SELECT FROM queues."Alone")');
CALL await('(SELECT total_dead > 0 AND total_expired > 0 FROM queue.stats WHERE queue = ''w'')');

-- peeking, cancelling, purging; emptied segments
SELECT * FROM queues.w_dead;
SELECT count(queue.enqueue('w', to_jsonb(n))) FROM generate_series(1, 50) n;
SELECT raises('0A000', 'UPDATE queues.w SET key = ''x''');
SELECT queue.cancel('w', (SELECT min(id) FROM queues.w)), queue.cancel('w', -1);
DELETE FROM queues.w WHERE id = (SELECT min(id) FROM queues.w) RETURNING *;
SELECT queue.purge('w', '{"older_than": "1 day"}');
BEGIN;
SELECT queue.purge('w', '{"states": ["ready", "delayed", "leased", "failed"]}');
ROLLBACK;
SELECT queue.purge('w', '{"states": ["ready", "delayed", "leased", "failed"]}'), queue.purge('w_dead');
CALL await('NOT EXISTS (SELECT FROM queue.segments WHERE state = ''sealed'')');

-- in order, of a key, with a state; to one consumer at a time
SELECT queue.create('line', '{"ordered": true, "on_dead": "block", "backoff": "none", "single_active_consumer": true}');
SELECT count(queue.enqueue('line', to_jsonb(n), key => (n % 3)::text)) FROM generate_series(1, 300) n;
SELECT receipt AS r FROM queue.dequeue('line', options => '{"key": "2"}') \gset
BEGIN;
SELECT queue.set_key_state(:'r', to_jsonb(repeat('state ', 1000)));
SAVEPOINT a;
SELECT queue.ack(:'r');
ROLLBACK TO a;
SELECT queue.set_key_state(:'r', queue.get_key_state(:'r')), queue.ack(:'r');
COMMIT;
SELECT raises('54000', $$SELECT queue.set_key_state(receipt, to_jsonb(repeat('x', 70000))) FROM queue.dequeue('line', options => '{"key": "1"}')$$);
SELECT queue.reject(receipt), queue.set_key_state(receipt, NULL) FROM queue.dequeue('line', options => '{"key": "0"}');
SELECT * FROM queue.blocked_keys('line');
SELECT queue.unblock('line', '0');
SELECT count(*) FROM queue.dequeue('line', 10, options => '{"consumer": "another"}', wait => '10 ms');
SELECT queue.clock_advance('31 s');
SELECT count(*) > 0 FROM queue.dequeue('line', 10, options => '{"consumer": "another", "key": "2"}', wait => '5 s');
SELECT active_consumer FROM queue.stats WHERE queue = 'line';
SELECT queue.drop('line', true);

-- watching
SELECT * FROM queue.options;
SELECT * FROM queue.queues;
SELECT * FROM queue.stats;
SELECT * FROM queue.segments;
SELECT * FROM queue.leases;
SELECT * FROM queue.health();
SELECT raises('55000', $$SELECT queue._break('w', 'chain')$$);
DO $$
BEGIN
	IF EXISTS (SELECT FROM queue.check()) THEN
		RAISE 'queue.check(): %', (SELECT string_agg(c::text, '; ') FROM queue.check() c);
	END IF;
END $$;
SELECT queue.enqueue('w', '1');
SELECT count(*) FROM queue.dequeue('w', 1);
SELECT queue._break('w', 'counter');
SELECT * FROM queue.check();
SELECT queue.drop('w', true), queue.drop('Alone');

-- A call that raises is not counted, and the trigger for UPDATE does nothing else.
SELECT pg_stat_force_next_flush();
DO $$
DECLARE
	missed text;
BEGIN
	SELECT string_agg(p.oid::regprocedure::text, ', ') INTO missed
	FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'queue') AND d.deptype = 'e'
		AND p.proname <> '_view_update' AND coalesce(pg_stat_get_function_calls(p.oid), 0) = 0;
	IF missed IS NOT NULL THEN
		RAISE 'not called: %', missed;
	END IF;
END $$;
DROP EXTENSION queue;
