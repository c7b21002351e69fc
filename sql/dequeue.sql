-- Taking messages: numbers, bounds, pauses, deleting what nobody takes.
CREATE EXTENSION IF NOT EXISTS queue;
SELECT queue.create('q');
SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 10) n;
SELECT queue.dequeue('q', 0);
SELECT queue.dequeue('q', -1);
SELECT queue.dequeue('q', 10001);
SELECT queue.dequeue('q', NULL);
SELECT queue.dequeue(NULL);
SELECT queue.dequeue('nowhere');
SELECT queue.dequeue('q', lease => '0 s');
SELECT queue.dequeue('q', lease => '-1 s');
SELECT queue.dequeue('q', lease => '13 h');
SELECT queue.dequeue('q', wait => '-1 s');
SELECT queue.dequeue('q', options => '{"key": 1}');
SELECT queue.dequeue('q', options => jsonb_build_object('attempt_id', repeat('a', 256)));
SELECT queue.dequeue('q', options => '{"hurry": true}');
SELECT payload, attempt, queue, lease_until - enqueued_at > interval '59 s' AS long FROM queue.dequeue('q', 2, '1 min', options => '{"consumer": "me"}');
SELECT queue, state, attempt, consumer, owner = current_user::regrole AS mine FROM queue.leases ORDER BY id;
SELECT state, count(*) FROM queues.q GROUP BY state ORDER BY state;
SELECT count(*) FROM queue.dequeue('q', 100, options => '{"max_bytes": 1}');
SELECT payload FROM queues.q WHERE state = 'ready' LIMIT 2;

-- not its own, not yet committed
BEGIN;
SELECT queue.enqueue('q', '"mine"') IS NOT NULL AS sent;
SELECT count(*) FILTER (WHERE payload = '"mine"') AS own FROM queue.dequeue('q', 100);
ROLLBACK;

-- read-only
SET transaction_read_only = on;
BEGIN READ ONLY;
SELECT queue.enqueue('q', '1');
ROLLBACK;
BEGIN READ ONLY;
SELECT queue.dequeue('q');
ROLLBACK;

-- pause
SELECT queue.create('p');
SELECT queue.enqueue('p', '1') IS NOT NULL AS sent;
SELECT queue.pause('p', reason => 'maintenance');
SELECT count(*) FROM queue.dequeue('p');
SELECT paused_dequeue, paused_enqueue, pause_reason FROM queue.queues WHERE queue = 'p';
SELECT queue.pause('p', 'enqueue');
SELECT queue.enqueue('p', '1');
SELECT queue.pause('p', 'sideways');
SELECT queue.resume('p', 'both');
SELECT count(*) FROM queue.dequeue('p');

-- wait: true is only a hint where messages were, so the first is for a queue that never had one
SELECT queue.create('never');
CALL queue.wait('never', '10 ms');
SELECT queue.drop('never');
SELECT queue.enqueue('p', '2') IS NOT NULL AS sent;
CALL queue.wait('p', '10 s');
BEGIN;
CALL queue.wait('p', '10 ms');
ROLLBACK;

-- cancel and purge
SELECT queue.create('c');
SELECT queue.enqueue('c', '1') AS id \gset
SELECT queue.cancel('c', :id), queue.cancel('c', :id), queue.cancel('c', -1);
SELECT count(queue.enqueue('c', to_jsonb(n))) FROM generate_series(1, 10) n;
DELETE FROM queues.c WHERE payload::int > 8 RETURNING payload;
SELECT count(*) FROM queue.dequeue('c', 2);
DELETE FROM queues.c WHERE state = 'leased';
BEGIN;
SELECT queue.purge('c');
SELECT count(*) FROM queues.c;
ROLLBACK;
SELECT count(*) FROM queues.c;
SELECT queue.purge('c', '{"older_than": "1 hour"}');
SELECT queue.purge('c', '{"states": ["lost"]}');
SELECT queue.purge('c', '{"when": 1}');
SELECT queue.purge('c', '{"states": ["ready"]}');
SELECT queue.purge('c', '{"states": ["leased"]}');
-- released with a delay it is delayed, failed it is not, also while the worker, kept off here, has not written that
SELECT count(queue.enqueue('c', to_jsonb(n))) AS sent FROM generate_series(1, 2) n;
SELECT segment FROM queue.segments WHERE queue = 'c' AND state = 'active' \gset
SELECT queue.alter('c', '{"backoff_base": "1 h", "backoff_max": "1 h"}');
BEGIN;
LOCK TABLE :segment IN SHARE MODE;
SELECT payload, queue.release(receipt, '1 h') FROM queue.dequeue('c');
SELECT count(*) FROM queue.dequeue('c', lease => '1 s');
SELECT queue.clock_advance('1001 ms');
SELECT count(*) AS too_early FROM queue.dequeue('c');
SELECT payload, state FROM queues.c ORDER BY id;
SELECT queue.purge('c', '{"states": ["failed"]}') AS failed, queue.purge('c') AS delayed;
COMMIT;
SELECT count(*) FROM queues.c;
SELECT * FROM queue.check();
SELECT queue.drop('q', true), queue.drop('p', true), queue.drop('c', true);
-- cancelling by id finds a message wherever it is stored
SELECT queue.create('found', '{"backoff": "none"}');
SELECT count(queue.enqueue('found', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 10)))) FROM generate_series(1, 2000) n;
SELECT queue.nack(receipt, 'again') FROM queue.dequeue('found');
SELECT n, queue.cancel('found', id) FROM (SELECT id, payload::int AS n FROM queues.found) m WHERE n IN (1, 2, 777, 1999, 2000) ORDER BY n;
SELECT count(*), min(payload::int), max(payload::int) FROM queues.found WHERE payload::int NOT BETWEEN 700 AND 800;
SELECT queue.cancel('found', 0), queue.cancel('found', 9223372036854775807);
SELECT queue.drop('found', true);
-- a dequeue that is repeated under its name returns what it holds, until that is settled or lost
SELECT queue.create('again', '{"backoff": "none"}');
CREATE TEMPORARY TABLE first (n int, receipt uuid, attempt int);
SELECT count(queue.enqueue('again', to_jsonb(n))) FROM generate_series(1, 6) n;
INSERT INTO first SELECT payload::int, receipt, attempt FROM queue.dequeue('again', 2, options => '{"attempt_id": "one"}');
SELECT m.payload, m.receipt = f.receipt AS same, m.attempt FROM queue.dequeue('again', 2, options => '{"attempt_id": "one"}') m LEFT JOIN first f ON f.n = m.payload::int;
SELECT payload FROM queue.dequeue('again', 1, options => '{"attempt_id": "one"}');
SELECT payload FROM queue.dequeue('again', 1, options => '{"attempt_id": "two"}');
SELECT total_dequeued FROM queue.stats WHERE queue = 'again';
SELECT queue.ack(receipt) FROM first WHERE n = 1;
SELECT payload FROM queue.dequeue('again', 9, options => '{"attempt_id": "one"}');
SELECT queue.nack(receipt) FROM first WHERE n = 2;
SELECT payload, attempt FROM queue.dequeue('again', 1, options => '{"attempt_id": "one"}');
-- another queue, another role
SELECT queue.create('other');
SELECT payload FROM queue.dequeue('other', 1, options => '{"attempt_id": "one"}');
CREATE ROLE stranger;
GRANT UPDATE ON queues.again TO stranger;
SET ROLE stranger;
SELECT payload FROM queue.dequeue('again', 1, options => '{"attempt_id": "two"}');
RESET ROLE;
-- what was taken by a transaction that is rolled back is not held any more
BEGIN;
SELECT payload, attempt FROM queue.dequeue('again', 1, options => '{"attempt_id": "three"}');
SELECT payload, attempt FROM queue.dequeue('again', 1, options => '{"attempt_id": "three"}');
ROLLBACK;
SELECT count(*) FROM queue.dequeue('again', 1, wait => '5 s', options => '{"attempt_id": "three"}');
-- late, and nobody else has it
SELECT queue.enqueue('other', '"late"') > 0 AS sent;
SELECT segment FROM queue.segments WHERE queue = 'other' AND state = 'active' \gset
BEGIN;
LOCK TABLE :segment IN SHARE MODE;
SELECT payload FROM queue.dequeue('other', 1, '1 s', options => '{"attempt_id": "late"}');
SELECT queue.clock_advance('1001 ms');
SELECT payload, attempt FROM queue.dequeue('other', 1, options => '{"attempt_id": "late"}');
COMMIT;
SELECT queue.drop('again', true), queue.drop('other', true);
DROP ROLE stranger;
