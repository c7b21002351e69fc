-- What is accepted once: dedup keys, unique keys, the inbox.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
SELECT queue.create('once');

-- a dedup_key within its window, whatever became of the first
SELECT id AS first, duplicate FROM queue.enqueue_unique('once', '"a"', dedup_key => 'a') \gset
SELECT :'duplicate' AS duplicate;
SELECT id = :first AS same, duplicate FROM queue.enqueue_unique('once', '"again"', dedup_key => 'a');
SELECT queue.enqueue('once', '"again"', dedup_key => 'a') = :first AS same;
SELECT queue.enqueue_bytes('once', '\x01', dedup_key => 'a') = :first AS same;
SELECT duplicate FROM queue.enqueue_unique('once', '"b"', dedup_key => 'b');
SELECT duplicate FROM queue.enqueue_unique('once', '"without"');
SELECT duplicate FROM queue.enqueue_unique('once', '"without"');
SELECT duplicate FROM queue.enqueue_unique('once', '"empty"', dedup_key => '');
SELECT duplicate FROM queue.enqueue_unique('once', '"empty"', dedup_key => '');
SELECT payload FROM queue.pop('once', 10) ORDER BY id;
SELECT queue.enqueue('once', '"acked"', dedup_key => 'a') = :first AS same;
SELECT id AS rejected FROM queue.enqueue_unique('once', '"r"', dedup_key => 'r') \gset
SELECT queue.reject(receipt) FROM queue.dequeue('once');
SELECT queue.enqueue('once', '"rejected"', dedup_key => 'r') = :rejected AS same;
SELECT id AS purged FROM queue.enqueue_unique('once', '"p"', dedup_key => 'p') \gset
SELECT queue.purge('once');
SELECT queue.enqueue('once', '"purged"', dedup_key => 'p') = :purged AS same;
-- on every way in
INSERT INTO queues.once (payload, dedup_key) VALUES ('"insert"', 'a') RETURNING id = :first AS same;
INSERT INTO queues.once (payload, dedup_key) VALUES ('"insert"', 'i') RETURNING id AS inserted \gset
COPY queues.once (payload, dedup_key) FROM STDIN;
"copy"	i
"copy"	c
"copy"	c
\.
SELECT payload FROM queue.pop('once', 10) ORDER BY id;
-- in a batch: before it, and twice in it
SELECT queue.enqueue_batch('once', '{"1", "2", "3", "4", "5"}', dedup_keys => '{x, a, NULL, x, NULL}') AS ids \gset
SELECT (:'ids'::bigint[])[1] = (:'ids'::bigint[])[4] AS twice_in_it, (:'ids'::bigint[])[2] = :first AS before_it,
    (SELECT count(DISTINCT id) FROM unnest(:'ids'::bigint[]) id) AS different;
SELECT string_agg(payload::text, ' ' ORDER BY id) FROM queue.pop('once', 10);
SELECT queue.enqueue_bytes_batch('once', '{"\\x01", "\\x02"}', dedup_keys => '{x, bytes}') AS ids \gset
SELECT body FROM queue.pop('once', 10);
SELECT array_length(queue.enqueue_batch('once', '{"1"}', dedup_keys => '{}'), 1);
-- within one transaction, and after one that was rolled back
BEGIN;
SELECT queue.enqueue('once', '1', dedup_key => 't') AS t \gset
SELECT queue.enqueue('once', '2', dedup_key => 't') = :t AS same;
SAVEPOINT s;
SELECT queue.enqueue('once', '3', dedup_key => 's') IS NOT NULL AS sent;
ROLLBACK TO s;
SELECT duplicate FROM queue.enqueue_unique('once', '4', dedup_key => 's');
ROLLBACK;
SELECT duplicate FROM queue.enqueue_unique('once', '5', dedup_key => 't');
SELECT duplicate FROM queue.enqueue_unique('once', '6', dedup_key => 's');
SELECT payload FROM queue.pop('once', 10) ORDER BY id;
-- in one statement
SELECT count(DISTINCT queue.enqueue('once', to_jsonb(n), dedup_key => 'n')) FROM generate_series(1, 100) n;
SELECT count(*) FROM queue.pop('once', 200);

-- the window does not slide; another may be longer or none
SELECT queue.clock_advance('4 min');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'a');
SELECT queue.clock_advance('61 s');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'a');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'a');
SELECT queue.alter('once', '{"dedup_window": "10 s"}');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'a');
SELECT queue.clock_advance('10 s');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'a');
SELECT queue.alter('once', '{"dedup_window": "infinity"}');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'ever');
SELECT queue.clock_advance('2 years');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'ever');
SELECT queue.alter('once', '{"dedup_window": 0}');
SELECT duplicate FROM queue.enqueue_unique('once', '1', dedup_key => 'ever');
SELECT queue.alter('once', '{"dedup_window": "-1 s"}');
SELECT queue.alter('once', '{"dedup_window": null}');
-- within a key
SELECT queue.create('once_scope', '{"dedup_scope": "key"}');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '1', key => 'k', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '2', key => 'l', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '3', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '4', key => '', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '5', key => 'l', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('once_scope', '6', dedup_key => 'd');
-- another queue has keys of its own, also one of the same name
SELECT queue.create('once_drop', '{"dedup_window": "infinity"}');
SELECT duplicate FROM queue.enqueue_unique('once_drop', '1', dedup_key => 'd', options => '{"unique_key": "u"}');
SELECT count(*) FROM queue._unique_key;
SELECT queue.drop('once_drop', true);
SELECT count(*) FROM queue._unique_key;
SELECT queue.create('once_drop', '{"dedup_window": "infinity"}');
SELECT duplicate FROM queue.enqueue_unique('once_drop', '1', dedup_key => 'd', options => '{"unique_key": "u"}');
SELECT queue.drop('once_drop', true);

-- a unique_key while its message is there
SELECT queue.create('single', '{"backoff": "none", "max_attempts": 2}');
CREATE FUNCTION put(content jsonb, more jsonb DEFAULT '{}', delay interval DEFAULT NULL) RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE sql AS $$ SELECT * FROM queue.enqueue_unique('single', content, delay => delay, options => '{"unique_key": "u"}' || more) $$;
SELECT id AS u FROM put('"first"') \gset
SELECT id = :u AS same, duplicate FROM put('"ready"');
SELECT receipt, payload FROM queue.dequeue('single') \gset
SELECT id = :u AS same, duplicate FROM put('"leased"');
SELECT queue.nack(:'receipt');
SELECT id = :u AS same, duplicate FROM put('"failed"');
SELECT receipt, payload FROM queue.dequeue('single') \gset
SELECT :'payload';
SELECT queue.ack(:'receipt');
SELECT id = :u AS same, duplicate FROM put('"after the ack"');
SELECT queue.reject(receipt) FROM queue.dequeue('single');
SELECT duplicate FROM put('"after the reject"');
SELECT queue.nack(receipt) FROM queue.dequeue('single');
SELECT queue.nack(receipt) FROM queue.dequeue('single');
SELECT duplicate FROM put('"after its death"');
SELECT queue.cancel('single', id) FROM queues.single;
SELECT duplicate FROM put('"after a cancel"');
DELETE FROM queues.single;
SELECT duplicate FROM put('"after a delete"', delay => '1 h');
SELECT duplicate FROM put('"delayed"');
SELECT queue.purge('single');
SELECT duplicate FROM put('"after a purge"');
SELECT payload FROM queue.pop('single');
SELECT duplicate FROM put('"after a pop"');
SELECT receipt FROM queue.dequeue('single') \gset
BEGIN;
SELECT queue.ack(:'receipt');
SELECT duplicate FROM put('"beside its own ack"');
ROLLBACK;
SELECT duplicate FROM put('"after that was rolled back"');
SELECT queue.ack(:'receipt');
SELECT payload FROM queue.pop('single', 10);
SELECT count(*) FROM queue._unique_key;
-- to replace it
SELECT id AS r FROM put('"old"', delay => '1 h') \gset
SELECT id > :r AS another, id AS r, duplicate FROM put('"new"', '{"on_conflict": "replace"}') \gset
SELECT :'another', :'duplicate';
SELECT id = :r AS is_there, payload, state FROM queues.single;
SELECT id = :r AS same, duplicate FROM put('"skipped"');
SELECT id > :r AS another, id AS r, duplicate FROM put('"newer"', '{"on_conflict": "debounce"}', delay => '2 h') \gset
SELECT :'another', :'duplicate';
SELECT id = :r AS is_there, payload, state FROM queues.single;
SELECT queue.clock_advance('61 min');
SELECT payload FROM queue.pop('single');
SELECT id AS r FROM put('"newest"', '{"on_conflict": "debounce"}') \gset
SELECT receipt, payload, attempt FROM queue.dequeue('single') \gset
SELECT :'payload';
SELECT id = :r AS same, duplicate FROM put('"too late"', '{"on_conflict": "replace"}');
SELECT queue.nack(:'receipt');
SELECT id > :r AS another, duplicate FROM put('"begins anew"', '{"on_conflict": "replace"}');
SELECT payload, attempt FROM queue.pop('single', 10);
-- its time is that of a release, too
SELECT id AS r FROM put('"released"') \gset
SELECT queue.release(receipt, '1 h') FROM queue.dequeue('single');
SELECT duplicate FROM put('"waits as long"', '{"on_conflict": "replace"}');
SELECT count(*) FROM queue.pop('single', 10);
SELECT queue.clock_advance('61 min');
SELECT payload, attempt FROM queue.pop('single', 10);
SELECT total_enqueued - total_acked - total_cancelled - total_dead AS neither FROM queue.stats WHERE queue = 'single';
-- twice in a transaction, in a statement, in a batch
BEGIN;
SELECT duplicate FROM put('1', '{"on_conflict": "replace"}');
SELECT duplicate FROM put('2', '{"on_conflict": "replace"}');
SELECT p.duplicate FROM generate_series(3, 5) n, LATERAL put(to_jsonb(n), '{"on_conflict": "debounce"}') p;
COMMIT;
SELECT payload FROM queue.pop('single', 10);
SELECT queue.enqueue_batch('single', '{1, 2, 3}', options => '{"unique_key": "u"}') AS ids \gset
SELECT count(DISTINCT id) FROM unnest(:'ids'::bigint[]) id;
SELECT payload FROM queue.pop('single', 10);
SELECT array_length(queue.enqueue_batch('single', '{1, 2, 3}', options => '{"unique_key": "u", "on_conflict": "replace"}'), 1);
SELECT payload FROM queue.pop('single', 10);
INSERT INTO queues.single (payload, unique_key) VALUES ('"insert"', 'u'), ('"again"', 'u');
INSERT INTO queues.single (payload, unique_key, options) VALUES ('"replaces"', 'u', '{"on_conflict": "replace"}');
SELECT payload FROM queue.pop('single', 10);
-- both keys: who is left out for one is remembered by the other
SELECT id AS b FROM queue.enqueue_unique('single', '1', dedup_key => 'd1', options => '{"unique_key": "b"}') \gset
SELECT id = :b AS same, duplicate FROM queue.enqueue_unique('single', '2', dedup_key => 'd2', options => '{"unique_key": "b"}');
SELECT payload FROM queue.pop('single', 10);
SELECT id = :b AS same, duplicate FROM queue.enqueue_unique('single', '3', dedup_key => 'd2', options => '{"unique_key": "b"}');
SELECT id = :b AS same, duplicate FROM queue.enqueue_unique('single', '4', dedup_key => 'd3', options => '{"unique_key": "b"}');
SELECT payload FROM queue.pop('single', 10);
-- what is refused
SELECT queue.enqueue('single', '1', options => '{"unique_key": "u", "on_conflict": "ignore"}');
SELECT queue.enqueue('single', '1', options => '{"on_conflict": "replace"}');
CREATE ROLE regress_once_producer;
GRANT INSERT ON queues.single TO regress_once_producer;
SET ROLE regress_once_producer;
SELECT queue.enqueue('single', '"theirs"', options => '{"unique_key": "p"}') > 0 AS sent;
SELECT queue.enqueue('single', '"theirs"', options => '{"unique_key": "p", "on_conflict": "debounce"}');
RESET ROLE;
GRANT DELETE ON queues.single TO regress_once_producer;
SET ROLE regress_once_producer;
SELECT queue.enqueue('single', '"with DELETE"', options => '{"unique_key": "p", "on_conflict": "debounce"}') > 0 AS sent;
RESET ROLE;
REVOKE ALL ON queues.single FROM regress_once_producer;
DROP ROLE regress_once_producer;
SELECT payload FROM queue.pop('single', 10);
-- a table is reindexed; an index that was left behind is no trouble
REINDEX TABLE CONCURRENTLY queue._unique_key;
CREATE INDEX left_behind ON queue._unique_key (id);
SELECT duplicate FROM put('1');
SELECT payload FROM queue.pop('single', 10);
DROP INDEX queue.left_behind;
SELECT queue.enqueue('single', '1', options => '{"unique_key": 1}');
SELECT queue.enqueue('single', '1', options => jsonb_build_object('unique_key', repeat('x', 513)));
SELECT queue.enqueue('single', jsonb_build_object('large', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n)),
    options => jsonb_build_object('unique_key', repeat('x', 512))) IS NOT NULL AS sent;
INSERT INTO queues.single (payload, unique_key, options) VALUES ('1', 'u', '{"unique_key": "u"}');
SELECT octet_length(payload ->> 'large') FROM queue.pop('single');
SELECT count(*) FROM queue._unique_key;

-- ordered queues, whose ids are drawn late
SELECT queue.create('once_line', '{"ordered": true, "backoff": "none"}');
SELECT id AS first, duplicate FROM queue.enqueue_unique('once_line', '1', key => 'k', dedup_key => 'a', options => '{"unique_key": "u"}') \gset
SELECT id = :first AS same, duplicate FROM queue.enqueue_unique('once_line', '2', key => 'k', dedup_key => 'a');
SELECT id = :first AS same, duplicate FROM queue.enqueue_unique('once_line', '3', key => 'k', options => '{"unique_key": "u"}');
SELECT queue.enqueue_batch('once_line', '{1, 2, 3, 4}', keys => '{k, k, k, k}', dedup_keys => '{b, c, b, a}') AS ids \gset
SELECT (:'ids'::bigint[])[1] = (:'ids'::bigint[])[3] AS twice_in_it, (:'ids'::bigint[])[4] = :first AS before_it;
SELECT queue.enqueue('once_line', '"c again"', key => 'k', dedup_key => 'c') = (:'ids'::bigint[])[2] AS same;
BEGIN;
SELECT queue.enqueue('once_line', '5', key => 'k', dedup_key => 'e') AS e \gset
SELECT queue.enqueue('once_line', '5', key => 'k', dedup_key => 'e') = :e AS same;
COMMIT;
SELECT id > :first AS behind, duplicate FROM queue.enqueue_unique('once_line', '"replaces"', key => 'k', options => '{"unique_key": "u", "on_conflict": "replace"}');
SELECT payload FROM queue.pop('once_line', 10);
SELECT duplicate FROM queue.enqueue_unique('once_line', '6', key => 'k', options => '{"unique_key": "u"}');
-- one that is put off again and again keeps nobody back
SELECT duplicate FROM queue.enqueue_unique('once_line', '"put off"', key => 'l', delay => '1 h', options => '{"unique_key": "l"}');
SELECT queue.enqueue('once_line', '7', key => 'l') > 0 AS sent;
SELECT duplicate FROM queue.enqueue_unique('once_line', '"put off"', key => 'l', delay => '1 h', options => '{"unique_key": "l", "on_conflict": "debounce"}');
SELECT payload FROM queue.pop('once_line', 10);
SELECT queue.enqueue('once_line', '8', key => 'l') > 0 AS sent;
SELECT payload FROM queue.pop('once_line', 10);

-- dead letters and what expires free the key
SELECT queue.create('once_brief', '{"on_expiry": "drop"}');
SELECT queue.enqueue('once_brief', '1', ttl => '1 s', options => '{"unique_key": "u"}') IS NOT NULL AS sent;
SELECT queue.clock_advance('2 s');
SELECT count(*) FROM queue.dequeue('once_brief');

-- the inbox
SELECT queue.once('billing', 'm1'), queue.once('billing', 'm1'), queue.once('billing', 'm2'), queue.once('mail', 'm1');
BEGIN;
SELECT queue.once('billing', 'm3');
ROLLBACK;
SELECT queue.once('billing', 'm3');
SELECT queue.once('billing', 'm3');
SELECT queue.clock_advance('6 days 23 h');
SELECT queue.once('billing', 'm3');
SELECT queue.clock_advance('2 h');
SELECT queue.once('billing', 'm3');
SELECT queue.once('ab', 'c'), queue.once('a', 'bc');
CREATE ROLE regress_once;
SET ROLE regress_once;
SELECT queue.once('billing', 'm3');
SELECT queue.once('billing', 'm3');
SELECT count(*) FROM queue._seen_1week_1;
RESET ROLE;
DROP ROLE regress_once;
SELECT queue.once(NULL, 'm');
SELECT queue.once('billing', NULL);

SELECT * FROM queue.check();
-- a key that is held by a message that is not there is found
INSERT INTO queue._unique_key SELECT (lpad(to_hex(id), 8, '0') || repeat('0', 24))::uuid, 1, now() FROM queue._queue WHERE view = 'queues.single'::regclass;
SELECT * FROM queue.check();
DELETE FROM queue._unique_key WHERE id = 1;
SELECT * FROM queue.check();
DROP FUNCTION put;
SELECT count(queue.drop(name, true)) FROM unnest(ARRAY['once', 'once_scope', 'single', 'once_line', 'once_brief']) name;
