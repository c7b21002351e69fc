-- Ways into a queue.
CREATE EXTENSION IF NOT EXISTS queue;
SELECT queue.create('e');
SELECT queue.enqueue('e', '{"n": 1}', key => 'k', headers => '{"trace": "t"}') AS first \gset
SELECT queue.enqueue_bytes('e', '\x00ff', key => 'b') > :first AS later;
SELECT duplicate FROM queue.enqueue_unique('e', '{"n": 2}');
SELECT array_length(queue.enqueue_batch('e', ARRAY['{"n": 3}', '{"n": 4}']::jsonb[], keys => ARRAY['x', NULL],
    headers => ARRAY[NULL, '{"h": 1}']::jsonb[]), 1);
SELECT array_length(queue.enqueue_bytes_batch('e', ARRAY['\x01', '\x02']::bytea[]), 1);
INSERT INTO queues.e (payload, key) VALUES ('{"n": 5}', 'view') RETURNING id > :first AS has_id, state, deliver_at = enqueued_at AS at_once, failures;
INSERT INTO queues.e (body, delay) VALUES ('\x03', '1 hour') RETURNING state, deliver_at - enqueued_at AS delay;
COPY queues.e (payload, headers) FROM STDIN;
{"n": 6}	{"from": "copy"}
{"n": 7}	\N
\.
SELECT state, key, headers, payload, body FROM queues.e ORDER BY id;
SELECT key, headers, payload, body, attempt, priority, last_error FROM queue.dequeue('e', 100, '1 h') ORDER BY id;
SELECT ready, leased, delayed FROM queue.stats WHERE queue = 'e';

-- delays and times to live
SELECT queue.create('d');
SELECT queue.enqueue('d', '"delayed"', delay => '10 s') IS NOT NULL AS sent;
SELECT queue.enqueue('d', '"at"', deliver_at => now() + interval '20 s') IS NOT NULL AS sent;
SELECT queue.enqueue('d', '"past"', deliver_at => '-infinity') IS NOT NULL AS sent;
SELECT queue.enqueue('d', '"short"', ttl => '15 s', delay => '12 s') IS NOT NULL AS sent;
SELECT payload FROM queue.pop('d', 10);
SET client_min_messages = error;
SELECT queue.clock_advance('11 s');
SELECT payload FROM queue.pop('d', 10);
SELECT queue.clock_advance('11 s');
SELECT payload FROM queue.pop('d', 10);
RESET client_min_messages;

-- what is refused
SELECT queue.enqueue('e', '1', delay => '-1 s');
SELECT queue.enqueue('e', '1', delay => '1 s', deliver_at => now());
SELECT queue.enqueue('e', '1', deliver_at => 'infinity');
SELECT queue.enqueue('e', '1', ttl => '-1 s');
SELECT queue.enqueue('e', '1', headers => '[]');
SELECT queue.enqueue('e', '1', headers => '{"queue.death": 1}');
SELECT queue.enqueue('e', '1', options => '{"colour": 1}');
SELECT queue.enqueue_batch('e', ARRAY['1', NULL]::jsonb[]);
SELECT queue.enqueue_batch('e', ARRAY['1', '2']::jsonb[], keys => ARRAY['a']);
SELECT queue.enqueue_batch('e', array_agg('1'::jsonb)) FROM generate_series(1, 10001);
SELECT array_length(queue.enqueue_batch('e', array_agg('1'::jsonb)), 1) FROM generate_series(1, 10000);
SELECT array_length(queue.enqueue_batch('e', '{}'), 1);
INSERT INTO queues.e (key) VALUES ('nothing');
INSERT INTO queues.e (payload, body) VALUES ('1', '\x01');
INSERT INTO queues.e (payload, id) VALUES ('1', 1);
UPDATE queues.e SET key = 'x';
SET session_replication_role = replica;
INSERT INTO queues.e (payload) VALUES ('1');
RESET session_replication_role;
SET queue.max_message_size = '1MB';
SELECT queue.enqueue_bytes('e', convert_to(repeat('x', 1048577), 'UTF8'));
SELECT queue.enqueue_bytes('e', convert_to(repeat('x', 1048576), 'UTF8')) IS NOT NULL AS sent;
SELECT sum(length(body)) FROM queues.e WHERE length(body) > 100;
SELECT queue.purge('e', '{"states": ["ready", "delayed", "leased"]}');
SELECT * FROM queue.check();
SELECT queue.drop('e', true), queue.drop('d', true);
