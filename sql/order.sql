-- Ordered queues: one consumer a key, in order, whatever becomes of a message.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
SELECT queue.create('o', '{"ordered": true, "backoff": "none", "lease_timeout": "30 s"}');
-- Receipts of what is held, by payload.
CREATE TEMPORARY TABLE held (payload text, receipt uuid, attempt int);
-- Dequeues, and shows what came: payload, and the attempt if it is not the first.
CREATE FUNCTION take(n int = 1, wait interval = NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m record; got text := '';
BEGIN
    FOR m IN SELECT * FROM queue.dequeue('o', n, wait => wait) LOOP
        DELETE FROM held WHERE payload = m.payload #>> '{}';
        INSERT INTO held VALUES (m.payload #>> '{}', m.receipt, m.attempt);
        got := got || ' ' || (m.payload #>> '{}') || CASE WHEN m.attempt > 1 THEN '/' || m.attempt ELSE '' END;
    END LOOP;
    RETURN got;
END $$;
CREATE FUNCTION receipt(p text) RETURNS uuid LANGUAGE sql AS $$ SELECT receipt FROM held WHERE payload = p $$;
CREATE FUNCTION send(VARIADIC names text[]) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(queue.enqueue('o', to_jsonb(n), key => left(n, 1))) FROM unnest(names) n $$;

-- one message of a key at a time, other keys beside it
SELECT send('a1', 'a2', 'b1', 'a3', 'b2');
SELECT take(), take(), take();
SELECT queue.ack(receipt('a1'));
SELECT take(), take();
SELECT queue.ack(receipt('b1'));
SELECT queue.ack(receipt('a2'));
SELECT take(), take(), take();
SELECT queue.ack_batch(ARRAY[receipt('a3'), receipt('b2')]);
SELECT take();

-- several of a key in one call, in order; nobody else gets the rest
SELECT send('a1', 'b1', 'a2', 'c1', 'a3', 'a4', 'b2');
SELECT take(3);
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a1'), receipt('b1')]);
SELECT take(100);
SELECT queue.ack(receipt('a2'));
SELECT take(100);
SELECT status, count(*) FROM queue.try_ack((SELECT array_agg(receipt ORDER BY payload) FROM held WHERE payload IN ('a3', 'a4', 'b2', 'c1'))) GROUP BY status;
SELECT count(*) FROM queues.o;

-- a message that fails goes back with those behind it; their receipts are void, and they are not charged
SELECT send('a1', 'a2', 'a3', 'b1');
SELECT take(100);
SELECT queue.nack(receipt('a2'), 'no');
SELECT status FROM queue.try_ack(ARRAY[receipt('a3')]);
SELECT take(100);
SELECT queue.ack(receipt('a1'));
SELECT take(100);
SELECT take(100);
SELECT queue.ack(receipt('a2'));
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a3'), receipt('b1')]);

-- the delay of a retry holds the key, and only it
SELECT queue.alter('o', '{"backoff": "fixed", "backoff_base": "60 s", "backoff_jitter": 0}');
SELECT send('a1', 'a2', 'b1');
SELECT take(2);
SELECT queue.nack(receipt('a1'));
SELECT send('a3', 'b2');
SELECT take();
SELECT queue.ack(receipt('b1'));
SELECT take(), take();
SELECT queue.ack(receipt('b2'));
SELECT queue.clock_advance('61 s');
SELECT take(), take();
SELECT queue.ack(receipt('a1'));
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a2'), receipt('a3')]);

-- a lease that runs out: the first is charged, the others are not; the worker writes it
SELECT send('a1', 'a2', 'a3');
SELECT take(100);
SELECT queue.clock_advance('31 s');
SELECT take(100);
SELECT status FROM queue.try_ack(ARRAY[receipt('a2'), receipt('a3')]);
SELECT queue.clock_advance('61 s');
SELECT take(100, '5 s');
SELECT queue.ack(receipt('a1'));
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a2'), receipt('a3')]);

-- a rollback: likewise
SELECT send('a1', 'a2');
BEGIN;
SELECT payload FROM queue.dequeue('o', 100);
ROLLBACK;
SELECT take(100);
SELECT queue.clock_advance('61 s');
SELECT take(100, '5 s');
SELECT queue.ack(receipt('a1'));
SELECT take(100);
SELECT queue.ack(receipt('a2'));

-- released, at once and later: in order, not counted
SELECT send('a1', 'a2', 'a3');
SELECT take(100);
SELECT queue.release(receipt('a2'));
SELECT status FROM queue.try_ack(ARRAY[receipt('a3')]);
SELECT queue.release(receipt('a1'));
SELECT take(100);
SELECT queue.release(receipt('a1'), '10 s');
SELECT take(100);
SELECT queue.clock_advance('11 s');
SELECT take(100, '5 s');
SELECT queue.ack(receipt('a1'));
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a2'), receipt('a3')]);

-- one that dies: the key goes on
SELECT send('a1', 'a2', 'a3');
SELECT take(100);
SELECT queue.reject(receipt('a1'), 'bad');
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a2'), receipt('a3')]);
SELECT payload, key, headers -> 'queue.death' ->> 'reason' AS reason FROM queue.pop('o_dead');
SELECT queue.alter('o', '{"max_attempts": 1}');
SELECT send('a1', 'a2');
SELECT take(100);
SELECT queue.nack(receipt('a1'));
SELECT take(100);
SELECT queue.ack(receipt('a2'));
SELECT payload, attempt FROM queue.pop('o_dead');
SELECT queue.alter('o', '{"max_attempts": null, "backoff": "none"}');

-- messages without a key share one
SELECT queue.enqueue_batch('o', ARRAY['1', '2', '3']::jsonb[]) IS NOT NULL AS sent;
SELECT take(), take();
SELECT queue.ack(receipt('1'));
SELECT take(2);
SELECT queue.ack_batch(ARRAY[receipt('2'), receipt('3')]);

-- settled in the transaction that is open: the key is held to its end
SELECT send('a1', 'a2');
BEGIN;
SELECT take();
SELECT queue.ack(receipt('a1'));
SELECT take();
COMMIT;
SELECT take();
SELECT queue.ack(receipt('a2'));
-- popped
SELECT send('a1', 'a2');
SELECT payload FROM queue.pop('o');
SELECT payload FROM queue.pop('o');
SELECT take();

-- what is purged or cancelled holds nobody back
SELECT queue.alter('o', '{"backoff": "fixed", "backoff_base": "1 h"}');
SELECT send('a1', 'a2', 'b1', 'b2', 'b3');
SELECT take(2);
SELECT queue.nack(receipt('a1'));
SELECT take(100);
SELECT queue.purge('o', '{"states": ["failed"]}');
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('b2'), receipt('b3')]);
SELECT send('c1', 'c2', 'c3');
SELECT queue.cancel('o', (SELECT id FROM queues.o WHERE payload = '"c2"'));
SELECT queue.ack_batch(ARRAY[receipt('b1'), receipt('a2')]);
SELECT take(100);
SELECT queue.purge('o', '{"states": ["ready", "delayed", "failed", "leased"]}') >= 0 AS purged;
SELECT take();

-- a dead message blocks its key, until somebody has looked
SELECT queue.alter('o', '{"on_dead": "block", "backoff": "none", "max_attempts": 2}');
SELECT send('a1', 'a2', 'b1', 'b2');
SELECT take(100);
SELECT queue.reject(receipt('a1'), 'look at this');
SELECT take(100);
SELECT b.key, m.payload, b.since IS NOT NULL AS since FROM queue.blocked_keys('o') b JOIN queues.o_dead m ON m.id = b.message;
SELECT queue.nack(receipt('b1'));
SELECT queue.nack(receipt) FROM queue.dequeue('o');
SELECT take(100);
SELECT key FROM queue.blocked_keys('o') ORDER BY key;
SELECT send('c1', 'a3');
SELECT take(100);
BEGIN;
SELECT queue.unblock('o', 'a');
SELECT take(100);
ROLLBACK;
SELECT take(100);
SELECT queue.unblock('o', 'a');
SELECT take(100);
SELECT queue.unblock('o', 'a'), queue.unblock('o', NULL);
SELECT queue.unblock('o', 'b');
SELECT take(100);
SELECT queue.ack_batch(ARRAY[receipt('a2'), receipt('a3'), receipt('b2'), receipt('c1')]);
-- one that is rolled back blocks nothing
SELECT send('a1', 'a2');
SELECT take();
BEGIN;
SELECT queue.reject(receipt('a1'));
ROLLBACK;
SELECT count(*) FROM queue.blocked_keys('o');
SELECT queue.ack(receipt('a1'));
SELECT take();
SELECT queue.ack(receipt('a2'));
-- one without a key
SELECT queue.enqueue_batch('o', ARRAY['1', '2']::jsonb[]) IS NOT NULL AS sent;
SELECT queue.reject(receipt) FROM queue.dequeue('o');
SELECT take();
SELECT queue.unblock('o', NULL);
SELECT take();
SELECT queue.ack(receipt('2'));

-- a dead message takes the rest of its key with it; what is enqueued later is delivered when that is gone
SELECT queue.purge('o_dead') > 0 AS purged;
SELECT queue.alter('o', '{"on_dead": "dead_rest", "max_attempts": 2}');
-- waits until no rest is left
CREATE PROCEDURE buried() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 1200 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM queue.blocked_keys('o') WHERE on_dead = 'dead_rest');
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
-- waits until a message is among the dead letters
CREATE PROCEDURE dies(first text) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 1200 LOOP
        EXIT WHEN EXISTS (SELECT FROM queues.o_dead WHERE payload #>> '{}' = first);
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
-- the dead letters in order of their ids; %: the id of what died first
CREATE FUNCTION dead(first text) RETURNS TABLE (payload text, key text, attempts text, reason text, error text) LANGUAGE sql AS $$
    SELECT payload #>> '{}', key, headers -> 'queue.death' ->> 'attempts', headers -> 'queue.death' ->> 'reason',
           replace(last_error, (SELECT id FROM queues.o_dead WHERE payload #>> '{}' = first)::text, '%')
    FROM queues.o_dead ORDER BY id
$$;
SELECT send('a1', 'a2', 'b1', 'a3', 'b2');
SELECT take(100);
SELECT queue.reject(receipt('a1'), 'bad');
SELECT status FROM queue.try_ack(ARRAY[receipt('a2'), receipt('a3')]);
SELECT send('a4');
CALL buried();
SELECT take(100);
SELECT * FROM dead('a1');
SELECT queue.ack_batch(ARRAY[receipt('b1'), receipt('b2'), receipt('a4')]);
SELECT queue.purge('o_dead');
-- by a nack; what waits for its time dies too, and what had failed, which is told; not what was ahead
SELECT send('a1', 'a2', 'a3');
SELECT queue.enqueue('o', '"a4"', key => 'a', delay => '1 h') > 0 AS sent;
SELECT take(100);
SELECT queue.nack(receipt('a3'), 'third');
SELECT queue.nack(receipt('a2'), 'second');
SELECT queue.release(receipt('a1'));
SELECT take(1);
SELECT queue.ack(receipt('a1'));
SELECT take(1);
SELECT queue.nack(receipt('a2'), 'again');
SELECT send('a5');
CALL buried();
SELECT take(100);
SELECT * FROM dead('a2');
SELECT queue.ack(receipt('a5'));
SELECT queue.purge('o_dead');
SELECT send('a1', 'a2', 'a3');
SELECT take(100);
SELECT queue.reject(receipt('a2'));
SELECT on_dead FROM queue.blocked_keys('o');
SELECT queue.release(receipt('a1'));
CALL buried();
SELECT take(100);
SELECT queue.ack(receipt('a1'));
SELECT * FROM dead('a2');
SELECT queue.purge('o_dead');
-- the key forgets what was known of a message that had come back
SELECT send('a1', 'a2', 'a3');
SELECT take(100);
SELECT queue.nack(receipt('a3'));
SELECT queue.reject(receipt('a1'));
SELECT send('a4');
CALL buried();
SELECT take(100);
SELECT queue.ack(receipt('a4'));
SELECT payload, reason FROM dead('a1');
SELECT queue.purge('o_dead');
-- by a lease that runs out
SELECT queue.alter('o', '{"max_attempts": 1}');
SELECT send('a1', 'a2', 'a3', 'b1');
SELECT take(100);
SELECT queue.ack(receipt('b1'));
SELECT queue.clock_advance('31 s');
CALL dies('a1');
CALL buried();
SELECT send('a4');
SELECT take(100);
SELECT * FROM dead('a1');
SELECT queue.ack(receipt('a4'));
SELECT queue.purge('o_dead');
-- by a rollback, of one without a key
SELECT queue.enqueue_batch('o', ARRAY['1', '2', '3']::jsonb[]) IS NOT NULL AS sent;
BEGIN;
SELECT payload FROM queue.dequeue('o');
ROLLBACK;
CALL dies('1');
CALL buried();
SELECT take(100);
SELECT * FROM dead('1');
SELECT queue.purge('o_dead');
-- one that expires takes nobody along
SELECT queue.enqueue('o', '"a1"', key => 'a', ttl => '1 s') > 0 AS sent;
SELECT send('a2');
SELECT queue.clock_advance('2 s');
CALL dies('a1');
SELECT take(100);
SELECT queue.ack(receipt('a2'));
SELECT * FROM dead('a1');
SELECT queue.purge('o_dead');
-- without a dead-letter queue it is dropped
SELECT queue.alter('o', '{"dead_letter": ""}');
SELECT send('a1', 'a2', 'a3', 'b1');
SELECT queue.reject(receipt) FROM queue.dequeue('o');
CALL buried();
SELECT take(100);
SELECT queue.ack(receipt('b1'));
SELECT count(*) FROM queues.o;

-- errors
SELECT queue.create('plain', '{"on_dead": "block"}');
SELECT queue.create('plain', '{"on_dead": "dead_rest"}');
SELECT queue.create('plain');
SELECT queue.unblock('plain', 'a');
SELECT * FROM queue.blocked_keys('plain');
SELECT queue.unblock(NULL, 'a');
SELECT queue.drop('plain');
SELECT queue.enqueue('o', '1', key => repeat('k', 513));
SELECT queue.enqueue('o', '1', key => repeat('k', 512)) > 0 AS sent;
-- a key stays as it is in a row that is too long, whatever else is stored elsewhere
SELECT queue.purge('o') >= 0 AS purged;
CREATE FUNCTION noise(n int) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(md5(i::text), '') FROM generate_series(1, n) i $$;
SELECT queue.enqueue('o', to_jsonb(noise(150)), repeat('k', 512), jsonb_build_object('n', noise(140))) > 0 AS sent;
SELECT queue.enqueue('o', '2', repeat('k', 512)) > 0 AS sent;
SELECT length(payload::text) FROM queue.dequeue('o');
SELECT payload FROM queue.dequeue('o');
DROP FUNCTION noise;
-- errors
SELECT queue.alter('o', '{"ordered": false}');
SELECT queue.drop('o', true);
DROP FUNCTION take, receipt, send, dead;
DROP PROCEDURE buried, dies;
