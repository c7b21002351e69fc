-- What becomes of a delivered message.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
-- receipts are random
\set VERBOSITY terse
SELECT queue.create('s', '{"backoff": "fixed", "backoff_base": "10 s", "backoff_jitter": 0, "max_attempts": 3}');

-- ack, strict and not
SELECT queue.enqueue('s', '1') IS NOT NULL AS sent;
SELECT receipt AS r, attempt FROM queue.dequeue('s') \gset
SELECT queue.ack(:'r');
SELECT queue.ack(:'r');
SELECT status FROM queue.try_ack(ARRAY[:'r', gen_random_uuid(), '00000000-0000-8000-8000-000000000000']::uuid[]);
SELECT queue.ack_batch('{}');
SELECT queue.ack(NULL);
SELECT queue.ack_batch(ARRAY[NULL]::uuid[]);

-- nack, then the deadline, then reject: three failures
SELECT queue.enqueue('s', '{"n": 2}') AS id \gset
SELECT receipt AS r, attempt FROM queue.dequeue('s') \gset
SELECT queue.nack(:'r', 'broken');
SELECT count(*) FROM queue.dequeue('s');
SELECT state, failures, last_error FROM queues.s;
SELECT queue.clock_advance('11 s');
SELECT receipt AS old, attempt, last_error FROM queue.dequeue('s') \gset
SELECT :attempt AS attempt, :'last_error' AS last_error;
SELECT queue.clock_advance('41 s');
SELECT receipt AS r, attempt, last_error FROM queue.dequeue('s', wait => '5 s') \gset
SELECT :attempt AS attempt, :'last_error' AS last_error;
SELECT status FROM queue.try_ack(ARRAY[:'old']::uuid[]);
SELECT queue.nack(:'r', 'for the last time');
SELECT headers -> 'queue.death' ->> 'reason' AS reason, headers -> 'queue.death' ->> 'attempts' AS attempts,
    headers -> 'queue.death' ->> 'error' AS error, headers -> 'queue.death' ->> 'queue' AS queue,
    (headers -> 'queue.death' ->> 'id')::bigint = id AND id = :id AS same_id,
    headers -> 'queue.death' ->> 'first_failure' < headers -> 'queue.death' ->> 'last_failure' AS times
FROM queue.pop('s_dead');

-- reject
SELECT queue.enqueue('s', '3') IS NOT NULL AS sent;
SELECT queue.reject(receipt, 'poison') FROM queue.dequeue('s');
SELECT payload, attempt, last_error, headers -> 'queue.death' ->> 'reason' AS reason FROM queue.pop('s_dead');

-- release and extend act at once
SELECT queue.enqueue('s', '4') IS NOT NULL AS sent;
BEGIN;
SELECT receipt AS r FROM queue.dequeue('s') \gset
SELECT queue.release(:'r');
SELECT attempt FROM queue.dequeue('s');
SELECT receipt AS r FROM queue.dequeue('s') \gset
ROLLBACK;
SELECT queue.clock_advance('11 s');
SELECT receipt AS r, attempt FROM queue.dequeue('s', wait => '5 s') \gset
SELECT :attempt AS attempt;
SELECT queue.extend(:'r', '1 h') IS NOT NULL AS extended;
SELECT until - since >= '1 h' AS extended FROM queue.leases WHERE queue = 's';
SELECT queue.extend(:'r', '24 h') IS NOT NULL AS extended;
SELECT until - since AS capped FROM queue.leases WHERE queue = 's';
SELECT queue.extend(:'r', '0 s');
SELECT status FROM queue.extend_batch(ARRAY[:'r', gen_random_uuid()]::uuid[]);
SELECT queue.release(:'r', '5 s');
SELECT count(*) FROM queue.dequeue('s');
SELECT queue.clock_advance('6 s');
SELECT attempt FROM queue.dequeue('s', wait => '5 s');
SELECT queue.purge('s', '{"states": ["leased", "ready", "failed", "delayed"]}');

-- savepoints: a settlement is taken back, a lease stays
SELECT queue.enqueue('s', '5') IS NOT NULL AS sent;
BEGIN;
SAVEPOINT a;
SELECT receipt AS r FROM queue.dequeue('s') \gset
SELECT queue.ack(:'r');
ROLLBACK TO a;
SELECT queue.ack(:'r');
COMMIT;
SELECT count(*) FROM queues.s;

-- pop; a rollback counts
SELECT queue.enqueue('s', '6') IS NOT NULL AS sent;
BEGIN;
SELECT payload, attempt FROM queue.pop('s');
ROLLBACK;
SELECT queue.clock_advance('11 s');
SELECT payload, attempt FROM queue.dequeue('s', wait => '5 s');
SELECT queue.purge('s', '{"states": ["leased"]}');

-- per message: attempts
SELECT queue.enqueue('s', '7', options => '{"max_attempts": 1}') IS NOT NULL AS sent;
SELECT queue.nack(receipt) FROM queue.dequeue('s');
SELECT payload FROM queue.pop('s_dead');

-- who may not settle is told of which queue
SELECT queue.create('Not yours');
CREATE ROLE settle_stranger;
SELECT queue.enqueue('Not yours', '1') IS NOT NULL AS sent;
SELECT receipt FROM queue.dequeue('Not yours') \gset
\set VERBOSITY default
SET ROLE settle_stranger;
SELECT queue.ack(:'receipt');
SELECT queue.release(:'receipt');
SELECT status FROM queue.try_ack(ARRAY[:'receipt']::uuid[]);
RESET ROLE;
\set VERBOSITY terse
SELECT queue.ack(:'receipt');
SELECT queue.drop('Not yours');
DROP ROLE settle_stranger;

-- expiry
SELECT queue.alter('s', '{"message_ttl": "1 min"}');
SELECT queue.enqueue('s', '8') IS NOT NULL AS sent;
SELECT queue.clock_advance('61 s');
SELECT count(*) FROM queue.dequeue('s');
SELECT headers -> 'queue.death' ->> 'reason' AS reason FROM queue.dequeue('s_dead', wait => '5 s');
SELECT queue.nack_batch(NULL);
SELECT queue.release_batch(ARRAY[NULL]::uuid[]);
SELECT queue.nack('00000000-0000-8000-8000-000000000000', options => '{"error_class": "x"}');
SELECT * FROM queue.check();
SELECT queue.drop('s', true);

-- Only what was acked is already_acked.
SELECT queue.create('ended', '{"backoff": "none"}');
SELECT count(queue.enqueue('ended', to_jsonb(n))) FROM generate_series(1, 4) n;
CREATE TEMP TABLE ended AS SELECT receipt, payload FROM queue.dequeue('ended', 4);
BEGIN;
SELECT queue.ack(receipt) FROM ended WHERE payload = '1';
SELECT queue.nack(receipt) FROM ended WHERE payload = '2';
SELECT queue.reject(receipt) FROM ended WHERE payload = '3';
SELECT queue.purge('ended', '{"states": ["leased"]}');
SELECT payload, status FROM ended e, queue.try_ack(ARRAY[e.receipt]) ORDER BY payload;
COMMIT;
SELECT payload, status FROM ended e, queue.try_ack(ARRAY[e.receipt]) ORDER BY payload;
SELECT queue.drop('ended', true);
