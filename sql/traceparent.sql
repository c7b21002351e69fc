-- The caller's trace, which goes with each message.
CREATE EXTENSION IF NOT EXISTS queue;
SELECT queue.create('traced');
SHOW queue.traceparent;
SELECT queue.enqueue('traced', '"none"', headers => '{"a": 1}') IS NOT NULL AS sent;

SET queue.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
SELECT queue.enqueue('traced', '"one"', key => 'k') IS NOT NULL AS sent;
SELECT queue.enqueue('traced', '"with headers"', headers => '{"a": 1, "tracestate": "x=y"}') IS NOT NULL AS sent;
SELECT queue.enqueue('traced', '"its own"', headers => '{"traceparent": "mine"}') IS NOT NULL AS sent;
SELECT queue.enqueue('traced', '"its own, in other letters"', headers => '{"TraceParent": null}') IS NOT NULL AS sent;
SELECT queue.enqueue('traced', '"none at the top"', headers => '{"nested": {"traceparent": 1}}') IS NOT NULL AS sent;
SELECT duplicate FROM queue.enqueue_unique('traced', '"once"', dedup_key => 'd');
SELECT duplicate FROM queue.enqueue_unique('traced', '"never"', dedup_key => 'd');
SELECT queue.enqueue_bytes('traced', '\x01') IS NOT NULL AS sent;
SELECT array_length(queue.enqueue_batch('traced', ARRAY['"batch 1"', '"batch 2"', '"batch 3"']::jsonb[],
    headers => ARRAY[NULL, '{"h": 1}', '{"traceparent": "mine"}']::jsonb[]), 1);
SELECT array_length(queue.enqueue_bytes_batch('traced', ARRAY['\x02']::bytea[]), 1);
INSERT INTO queues.traced (payload) VALUES ('"inserted"') RETURNING headers;
INSERT INTO queues.traced (payload, headers) VALUES ('"inserted, with headers"', '{"a": 1}') RETURNING headers;
INSERT INTO queues.traced (payload, dedup_key) VALUES ('"never"', 'd') RETURNING headers;
COPY queues.traced (payload, headers) FROM STDIN;
"copied 1"	{"h": 2}
"copied 2"	\N
\.
BEGIN;
SET LOCAL queue.traceparent = '00-00000000000000000000000000000001-0000000000000001-00';
SELECT queue.enqueue('traced', '"another trace"') IS NOT NULL AS sent;
COMMIT;
SET queue.traceparent = '';
SELECT queue.enqueue('traced', '"none again"') IS NOT NULL AS sent;
INSERT INTO queues.traced (payload, headers) VALUES ('"inserted"', '{"a": 1}'), ('"inserted"', NULL) RETURNING headers;
SELECT coalesce(payload #>> '{}', body::text) AS content, headers FROM queues.traced ORDER BY id;

-- an ordered queue, and the limit of a message, which is that with the header
SELECT queue.create('traced_in_order', '{"ordered": true}');
SET queue.max_message_size = '1kB';
SELECT queue.enqueue('traced_in_order', to_jsonb(repeat('x', 950)), key => 'k') IS NOT NULL AS sent;
SET queue.traceparent = '01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00';
\set VERBOSITY terse
SELECT queue.enqueue('traced_in_order', to_jsonb(repeat('x', 950)), key => 'k') IS NOT NULL AS sent;
\set VERBOSITY default
RESET queue.max_message_size;
SELECT queue.enqueue('traced_in_order', '"ordered"', key => 'k') IS NOT NULL AS sent;
SELECT left(payload #>> '{}', 8) AS content, headers FROM queue.dequeue('traced_in_order', 10) ORDER BY id;

-- what is none
SET queue.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7';
SET queue.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-';
SET queue.traceparent = '00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01';
SET queue.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01';
SET queue.traceparent = '00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
SET queue.traceparent = 'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
SET queue.traceparent = '00-00000000000000000000000000000000-00f067aa0ba902b7-01';
SET queue.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01';
SHOW queue.traceparent;
RESET queue.traceparent;

SELECT queue.drop('traced', true), queue.drop('traced_in_order', true);
