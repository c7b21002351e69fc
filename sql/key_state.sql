-- What the holders of a key keep: it commits with their work, and nobody else can write it meanwhile.
SET client_min_messages = error;
SELECT queue.create('s', '{"ordered": true, "backoff": "none"}');
SELECT count(queue.enqueue('s', to_jsonb(n), key => nullif(left(n, 1), '-'))) FROM unnest(ARRAY['a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'b1', '-1', '-2']) n;

SELECT receipt AS a1 FROM queue.dequeue('s', options => '{"key": "a"}') \gset
SELECT queue.get_key_state(:'a1') IS NULL AS none;
SELECT queue.set_key_state(:'a1', '{"sum": 1}');
SELECT queue.get_key_state(:'a1');
SELECT state, attempt FROM queue.leases WHERE queue = 's';
SELECT queue.ack(:'a1');
\set VERBOSITY terse
SELECT queue.get_key_state(:'a1');
SELECT queue.set_key_state(:'a1', '{"sum": 2}');
\set VERBOSITY default
-- the next of the key has it, other keys do not
SELECT receipt AS a2 FROM queue.dequeue('s', options => '{"key": "a"}') \gset
SELECT receipt AS b1 FROM queue.dequeue('s', options => '{"key": "b"}') \gset
SELECT queue.get_key_state(:'a2'), queue.get_key_state(:'b1');
-- rolled back with the rest
BEGIN;
SELECT queue.set_key_state(:'a2', '{"sum": 3}');
SELECT queue.get_key_state(:'a2');
SELECT queue.ack(:'a2');
SELECT queue.get_key_state(:'a2');
ROLLBACK;
SELECT queue.get_key_state(:'a2');
-- before the ack and after it
BEGIN;
SELECT queue.set_key_state(:'a2', '{"sum": 3}');
SELECT queue.ack(:'a2');
SELECT queue.set_key_state(:'a2', '{"sum": 4}');
SELECT status FROM queue.try_ack(ARRAY[:'a2'::uuid]);
SELECT state FROM queue.leases WHERE queue = 's' ORDER BY id;
COMMIT;
SELECT status FROM queue.try_ack(ARRAY[:'a2'::uuid]);
-- savepoints: an ack that is rolled back leaves the state, and the message held
SELECT receipt AS a3 FROM queue.dequeue('s', options => '{"key": "a"}') \gset
BEGIN;
SELECT queue.set_key_state(:'a3', '{"sum": 5}');
SAVEPOINT one;
SELECT queue.ack(:'a3');
SELECT queue.set_key_state(:'a3', '{"sum": 6}');
ROLLBACK TO one;
SELECT queue.get_key_state(:'a3');
SAVEPOINT two;
SELECT queue.nack(:'a3');
ROLLBACK TO two;
COMMIT;
SELECT queue.get_key_state(:'a3'), (SELECT state FROM queue.leases WHERE queue = 's' ORDER BY id LIMIT 1);
-- a state that is rolled back holds nothing
BEGIN;
SAVEPOINT one;
SELECT queue.set_key_state(:'a3', '{"sum": 7}');
ROLLBACK TO one;
SELECT state FROM queue.leases WHERE queue = 's' ORDER BY id LIMIT 1;
SAVEPOINT two;
SELECT queue.set_key_state(:'a3', '{"sum": 8}');
RELEASE two;
SAVEPOINT three;
SELECT queue.ack(:'a3');
RELEASE three;
COMMIT;
-- an ack in a savepoint, the state below it
SELECT receipt AS a4 FROM queue.dequeue('s', options => '{"key": "a"}') \gset
BEGIN;
SAVEPOINT one;
SELECT queue.ack(:'a4');
SAVEPOINT two;
SELECT queue.set_key_state(:'a4', '{"sum": 9}');
ROLLBACK TO one;
SELECT queue.set_key_state(:'a4', '{"sum": 10}');
SELECT queue.get_key_state(:'a4');
COMMIT;
SELECT queue.nack(:'a4', 'again');
-- several of a key in one call
SELECT array_agg(receipt ORDER BY id) AS several FROM queue.dequeue('s', 1, options => '{"key": "a"}') \gset
BEGIN;
SELECT queue.get_key_state((:'several'::uuid[])[1]);
SELECT queue.reject((:'several'::uuid[])[1]), queue.set_key_state((:'several'::uuid[])[1], '{"sum": 11}');
COMMIT;
SELECT array_agg(receipt ORDER BY id) AS several FROM queue.dequeue('s', 3, options => '{"key": "a"}') \gset
BEGIN;
SELECT queue.ack((:'several'::uuid[])[1]), queue.set_key_state((:'several'::uuid[])[1], '{"sum": 12}');
SELECT queue.set_key_state((:'several'::uuid[])[2], '{"sum": 13}'), queue.get_key_state((:'several'::uuid[])[3]);
COMMIT;
SELECT queue.ack((:'several'::uuid[])[2]), queue.set_key_state((:'several'::uuid[])[3], '{"sum": 14}');
-- extended and acked while it is held
BEGIN;
SELECT queue.set_key_state((:'several'::uuid[])[3], '{"sum": 15}');
SELECT queue.extend((:'several'::uuid[])[3], '1 min') IS NOT NULL AS extended;
SELECT queue.ack((:'several'::uuid[])[3]);
COMMIT;
-- one before it fails: it goes back with that, whichever comes first, and the state stays
SELECT count(queue.enqueue('s', to_jsonb(n), key => 'c')) FROM unnest(ARRAY['c1', 'c2']) n;
SELECT array_agg(receipt ORDER BY id) AS several FROM queue.dequeue('s', 2, options => '{"key": "c"}') \gset
BEGIN;
SELECT queue.set_key_state((:'several'::uuid[])[2], '1'), queue.nack((:'several'::uuid[])[1]);
COMMIT;
SELECT status FROM queue.try_ack((:'several'::uuid[])[2:]);
SELECT array_agg(receipt ORDER BY id) AS several FROM queue.dequeue('s', 2, options => '{"key": "c"}') \gset
SELECT queue.get_key_state((:'several'::uuid[])[1]), queue.ack((:'several'::uuid[])[1]);
SELECT queue.ack(receipt) FROM queue.dequeue('s', 2, options => '{"key": "c"}');
SELECT count(queue.enqueue('s', to_jsonb(n), key => 'c')) FROM unnest(ARRAY['c3', 'c4']) n;
SELECT array_agg(receipt ORDER BY id) AS several FROM queue.dequeue('s', 2, options => '{"key": "c"}') \gset
BEGIN;
SELECT queue.nack((:'several'::uuid[])[1]), queue.set_key_state((:'several'::uuid[])[2], '2');
COMMIT;
SELECT status FROM queue.try_ack((:'several'::uuid[])[2:]);
SELECT queue.get_key_state(receipt), queue.ack(receipt) FROM queue.dequeue('s', 2, options => '{"key": "c"}');
SELECT queue.set_key_state(receipt, NULL), queue.ack(receipt) FROM queue.dequeue('s', 2, options => '{"key": "c"}');
-- popped
BEGIN;
SELECT queue.set_key_state(receipt, queue.get_key_state(receipt) || '{"popped": true}') FROM queue.pop('s');
COMMIT;
SELECT key, state FROM queue._key_state ORDER BY key;
-- deleted
SELECT receipt AS none FROM queue.dequeue('s', options => '{"key": ""}') \gset
BEGIN;
SELECT queue.set_key_state(:'none', '1');
SELECT queue.get_key_state(:'none');
SELECT queue.set_key_state(:'none', NULL);
SELECT queue.get_key_state(:'none') IS NULL AS none;
SELECT queue.set_key_state(:'none', '"x"');
COMMIT;
SELECT queue.set_key_state(:'none', NULL);
SELECT queue.set_key_state(:'none', 'null');
SELECT key, state FROM queue._key_state ORDER BY key COLLATE "C";
-- given back only when that is decided
BEGIN;
SELECT queue.set_key_state(:'none', '"kept"');
\set VERBOSITY sqlstate
SELECT queue.release(:'none');
\set VERBOSITY default
ROLLBACK;
SELECT queue.release(:'none');
\set VERBOSITY terse
SELECT queue.set_key_state(:'none', '1');
\set VERBOSITY default
-- two-phase commit: only with the message settled
SELECT receipt AS none FROM queue.dequeue('s', options => '{"key": ""}') \gset
BEGIN;
SELECT queue.set_key_state(:'none', '"prepared"');
PREPARE TRANSACTION 'state';
BEGIN;
SELECT queue.set_key_state(:'none', '"prepared"');
SELECT queue.ack(:'none');
PREPARE TRANSACTION 'state';
SELECT count(*) FROM queue.dequeue('s', options => '{"key": ""}');
COMMIT PREPARED 'state';
SELECT queue.get_key_state(receipt) FROM queue.dequeue('s', options => '{"key": ""}');

-- errors
SELECT queue.get_key_state(NULL);
SELECT queue.set_key_state(NULL, '1');
SELECT queue.get_key_state('00000000-0000-8000-8000-000000000000');
SELECT queue.set_key_state(:'b1', to_jsonb(repeat('x', 65536)));
SELECT queue.set_key_state(:'b1', to_jsonb(repeat('x', 65000)));
SELECT length(queue.get_key_state(:'b1')::text);
SET default_transaction_read_only = on;
SELECT queue.set_key_state(:'b1', '1');
RESET default_transaction_read_only;
CREATE ROLE regress_stranger;
SET ROLE regress_stranger;
SELECT queue.get_key_state(:'b1');
SELECT queue.set_key_state(:'b1', '1');
SELECT count(*) FROM queue._key_state;
RESET ROLE;
GRANT UPDATE ON queues.s TO regress_stranger;
SET ROLE regress_stranger;
SELECT queue.set_key_state(:'b1', '"of a stranger"');
RESET ROLE;
SELECT queue.get_key_state(:'b1');
SELECT queue.create('plain');
SELECT queue.enqueue('plain', '1', key => 'a') > 0 AS sent;
SELECT receipt AS plain FROM queue.dequeue('plain') \gset
SELECT queue.get_key_state(:'plain');
SELECT queue.set_key_state(:'plain', '1');
SELECT * FROM queue.check();
SELECT queue.drop('plain', true);
SELECT queue.drop('s', true);
SELECT count(*) FROM queue._key_state;
DROP ROLE regress_stranger;
