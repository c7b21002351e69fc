-- Failures: how long a message waits, how often it is tried, where it ends.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
-- Fails the one message of a queue until it is dead, or so many times, moving the clock to each next delivery; shows the waits in seconds.
CREATE PROCEDURE waits(q text, times int, INOUT waits int[] = '{}', INOUT fate text = NULL) LANGUAGE plpgsql AS $$
DECLARE
    wait int; segment regclass;
BEGIN
    SELECT s.segment INTO segment FROM queue.segments s WHERE s.queue = q AND s.state = 'active';
    FOR i IN 1 .. times LOOP
        SELECT queue.nack(receipt, 'failure ' || attempt) INTO fate FROM queue.dequeue(q, wait => '5 s');
        COMMIT;
        EXIT WHEN fate IS DISTINCT FROM 'retry';
        EXECUTE format('SELECT coalesce(round(extract(epoch FROM visible_at - last_failed_at)), 0) FROM %s', segment) INTO wait;
        waits := waits || wait;
        PERFORM queue.clock_advance(wait * interval '1 s');
        COMMIT;
    END LOOP;
END $$;

-- the kinds of backoff; the default is exponential from one second on, at most ten minutes, five attempts
SELECT queue.create('tries', '{"backoff_jitter": 0}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
SELECT attempt, last_error, headers -> 'queue.death' ->> 'attempts' AS attempts, headers -> 'queue.death' ->> 'reason' AS reason FROM queue.pop('tries_dead');
SELECT queue.alter('tries', '{"max_attempts": 0}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 13);
SELECT queue.purge('tries', '{"states": ["ready", "delayed", "failed"]}');
SELECT queue.alter('tries', '{"backoff": "none", "max_attempts": 4}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
SELECT queue.alter('tries', '{"backoff": "fixed", "backoff_base": "7 s"}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
SELECT queue.alter('tries', '{"backoff": "linear", "backoff_base": "10 s", "backoff_max": "25 s", "max_attempts": 5}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
SELECT queue.alter('tries', '{"backoff": "exponential", "backoff_base": "3 s", "backoff_max": "20 s", "max_attempts": 6}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
-- a list: its last element from then on
SELECT queue.alter('tries', '{"backoff": "list", "backoff_list": ["5 s", "0 s", "1 h"], "backoff_max": "2 h"}');
SELECT queue.enqueue('tries', '1') > 0 AS sent;
CALL waits('tries', 9);
SELECT count(*) AS dead FROM queue.pop('tries_dead', 100);

-- jitter: up to that part less, and not the same for all
SELECT queue.alter('tries', '{"backoff": "fixed", "backoff_base": "1000 s", "backoff_max": "1 h", "backoff_jitter": 0.2, "max_attempts": 0}');
SELECT count(queue.enqueue('tries', to_jsonb(n))) AS sent FROM generate_series(1, 200) n;
SELECT count(*) AS failed FROM queue.dequeue('tries', 200) d, queue.nack(d.receipt);
SELECT segment FROM queue.segments WHERE queue = 'tries' AND state = 'active' \gset
SELECT min(extract(epoch FROM visible_at - last_failed_at)) BETWEEN 799 AND 900 AS low,
    max(extract(epoch FROM visible_at - last_failed_at)) BETWEEN 900 AND 1000 AS high,
    count(DISTINCT round(extract(epoch FROM visible_at - last_failed_at))) > 50 AS spread FROM :segment;
SELECT state, count(*) FROM queues.tries GROUP BY state;
SELECT queue.purge('tries', '{"states": ["failed"]}');

-- a delay of one's own; the limit of a message; the text of an error
SELECT queue.enqueue('tries', '"own"', options => '{"max_attempts": 2}') > 0 AS sent;
SELECT queue.nack(receipt, delay => '33 s') FROM queue.dequeue('tries');
SELECT round(extract(epoch FROM visible_at - last_failed_at)) AS wait FROM :segment;
SELECT queue.clock_advance('34 s');
SELECT queue.nack(receipt, repeat('long ', 3000)) FROM queue.dequeue('tries');
SELECT length(last_error) AS kept FROM queue.pop('tries_dead');
SELECT queue.enqueue('tries', '"at once"') > 0 AS sent;
SELECT queue.nack(receipt, delay => '0 s') FROM queue.dequeue('tries');
SELECT attempt, last_error FROM queue.dequeue('tries') d, queue.ack(d.receipt);

-- no dead-letter queue: what fails for good is gone, and counted
SELECT queue.alter('tries', '{"dead_letter": "", "max_attempts": 1, "backoff": "none"}');
SELECT queue.enqueue('tries', '"lost"') > 0 AS sent;
SELECT queue.nack(receipt) FROM queue.dequeue('tries');
SELECT count(*) AS left_over FROM queues.tries;
SELECT count(*) AS dead FROM queues.tries_dead;
-- and a shared one
SELECT queue.create('morgue', '{"dead_letter": ""}');
SELECT queue.alter('tries', '{"dead_letter": "morgue"}');
SELECT queue.enqueue('tries', '"kept"', key => 'k', headers => '{"h": 1}') > 0 AS sent;
SELECT queue.reject(receipt, 'no good') FROM queue.dequeue('tries', options => '{"consumer": "me"}');
SELECT payload, key, headers - 'queue.death' AS headers, (headers -> 'queue.death') - '{id,first_failure,last_failure}'::text[] AS death, attempt, last_error FROM queue.pop('morgue');
SELECT queue.drop('morgue');
SELECT queue.alter('tries', '{"dead_letter": null}');
SELECT queue.drop('morgue');

-- nothing fails for good in a dead-letter queue, whatever is done there
SELECT queue.enqueue('tries_dead', '"again"') > 0 AS sent;
SELECT queue.reject(receipt) FROM queue.dequeue('tries_dead');
SELECT queue.alter('tries_dead', '{"max_attempts": 2}');
SELECT queue.alter('tries_dead', '{"dead_letter": "tries"}');
SELECT queue.alter('tries_dead', '{"on_expiry": "dead_letter"}');
SELECT queue.alter('tries_dead', '{"backoff_jitter": 0, "max_attempts": null}');
SELECT queue.clock_advance('15 min');
CALL waits('tries_dead', 7);
SELECT payload, state, failures FROM queues.tries_dead;

-- a message dies once: in a queue that takes the dead of others, too, which
-- goes on to bury its own; even where two name each other
SELECT queue.create('ring_a', '{"dead_letter": "", "max_attempts": 1, "backoff": "none"}');
SELECT queue.create('ring_b', '{"dead_letter": "ring_a", "max_attempts": 1, "backoff": "none"}');
SELECT queue.alter('ring_a', '{"dead_letter": "ring_b"}');
SELECT queue.enqueue('ring_a', '"of a"') > 0 AS sent;
SELECT queue.nack(receipt, 'first') FROM queue.dequeue('ring_a');
SELECT payload, attempt, headers -> 'queue.death' ->> 'queue' AS died_in, queue.nack(receipt, 'again') FROM queue.dequeue('ring_b');
SELECT payload, attempt, last_error, headers -> 'queue.death' ->> 'error' AS died_of, queue.reject(receipt) FROM queue.dequeue('ring_b');
SELECT payload, attempt FROM queue.dequeue('ring_b', lease => '1 s');
SELECT queue.clock_advance('2 s');
SELECT payload, attempt, last_error FROM queue.dequeue('ring_b', wait => '5 s');
SELECT queue.enqueue('ring_b', '"of b"') > 0 AS sent;
SELECT queue.nack(receipt) FROM queue.dequeue('ring_b');
SELECT payload, headers -> 'queue.death' ->> 'queue' AS died_in FROM queues.ring_a;
SELECT count(*) FROM queues.ring_b;
SELECT queue.alter('ring_b', '{"dead_letter": ""}');
SELECT queue.drop('ring_a', true);
SELECT queue.drop('ring_b', true);

-- leases that run out count as failures, with the backoff from the deadline on
SELECT queue.alter('tries', '{"dead_letter": null, "max_attempts": 3, "backoff": "fixed", "backoff_base": "50 s", "backoff_jitter": 0}');
SELECT queue.enqueue('tries', '"slow"') > 0 AS sent;
SELECT count(*) FROM queue.dequeue('tries', 1, '20 s');
SELECT queue.clock_advance('60 s');
SELECT count(*) AS too_early FROM queue.dequeue('tries');
SELECT queue.clock_advance('11 s');
SELECT attempt, last_error FROM queue.dequeue('tries', wait => '5 s');
SELECT total_failed > 0 AS counted FROM queue.stats WHERE queue = 'tries';
SELECT * FROM queue.check();
SELECT queue.drop('tries', true);
DROP PROCEDURE waits;

-- A function that dequeues and is cancelled at its work has seen the message:
-- a failure, or it would go on for ever. The client's own statement that is
-- cancelled has shown nobody anything: none.
SELECT queue.create('cut', '{"backoff": "none", "max_attempts": 2}');
SELECT queue.enqueue('cut', '1') > 0 AS sent;
CREATE FUNCTION cancelled_work() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	m queue.message;
BEGIN
	SELECT * INTO m FROM queue.dequeue('cut', wait => '5 s');
	PERFORM pg_cancel_backend(pg_backend_pid());
	PERFORM count(*) FROM generate_series(1, 1000000000);
	RETURN m.payload;
END $$;
SELECT attempt, pg_cancel_backend(pg_backend_pid()), (SELECT count(*) FROM generate_series(attempt, 1000000000)) FROM queue.dequeue('cut');
SELECT attempt, queue.release(receipt) FROM queue.dequeue('cut', wait => '5 s');
\set VERBOSITY terse
SELECT cancelled_work();
SELECT attempt, queue.release(receipt) FROM queue.dequeue('cut', wait => '5 s');
DO $$ BEGIN PERFORM cancelled_work(); END $$;
SELECT count(*) FROM queue.dequeue('cut');
-- nor has anybody seen what a statement took that its own trigger cancels, or
-- that is cancelled below a savepoint
SELECT queue.drop('cut', true);
SELECT queue.create('cut', '{"backoff": "none", "max_attempts": 2}');
SELECT queue.enqueue('cut', '2') > 0 AS sent;
CREATE TABLE worked (attempt int);
CREATE FUNCTION cancels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_cancel_backend(pg_backend_pid());
	PERFORM count(*) FROM generate_series(1, 1000000000);
	RETURN NULL;
END $$;
CREATE TRIGGER cancels AFTER INSERT ON worked FOR EACH ROW EXECUTE FUNCTION cancels();
WITH m AS (SELECT * FROM queue.dequeue('cut')) INSERT INTO worked SELECT attempt FROM m;
BEGIN;
SAVEPOINT a;
SELECT attempt, pg_cancel_backend(pg_backend_pid()), (SELECT count(*) FROM generate_series(attempt, 1000000000)) FROM queue.dequeue('cut', wait => '5 s');
ROLLBACK TO a;
SELECT attempt, queue.release(receipt) FROM queue.dequeue('cut', wait => '5 s');
ROLLBACK;
SELECT state, failures FROM queues.cut;
DROP TABLE worked;
DROP FUNCTION cancels();
-- an error that the statement catches, and goes on, is no end of it
CREATE FUNCTION caught() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_cancel_backend(pg_backend_pid());
	PERFORM count(*) FROM generate_series(1, 1000000000);
	RETURN 'not cancelled';
EXCEPTION WHEN query_canceled THEN
	RETURN 'caught';
END $$;
SELECT attempt, caught(), receipt FROM queue.dequeue('cut', wait => '5 s') \gset
SELECT :'attempt' AS attempt, :'caught' AS caught, queue.ack(:'receipt');
DROP FUNCTION caught();
DROP FUNCTION cancelled_work();
SELECT queue.drop('cut', true);
