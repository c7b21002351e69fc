-- Priorities: which message comes first.
SELECT queue.create('p', '{"priority_mode": "strict"}');

-- Higher ones first, in one queue, whatever the order of arrival; none is 4.
SELECT queue.enqueue('p', to_jsonb(n), priority => n) IS NOT NULL AS stored FROM unnest(ARRAY[3, 9, 0, 5, 4, 1, 8, 2, 7, 6]) n;
SELECT queue.enqueue('p', '"none"') IS NOT NULL AS stored;
SELECT priority, payload FROM queue.pop('p', 4);
SELECT priority, payload FROM queue.pop('p', 20);

-- In order of arrival within one.
SELECT queue.enqueue('p', to_jsonb(n), priority => n % 2) IS NOT NULL AS stored FROM generate_series(1, 6) n;
SELECT priority, payload FROM queue.pop('p', 6);

-- By all ways in.
SELECT cardinality(queue.enqueue_batch('p', ARRAY['"a"', '"b"']::jsonb[], priority => 2));
INSERT INTO queues.p (payload, priority) VALUES ('"view"', 7) RETURNING priority, state;
COPY queues.p (payload, priority) FROM stdin;
"copy 8"	8
"copy none"	\N
\.
SELECT queue.enqueue_bytes('p', '\x01', priority => 9) IS NOT NULL AS stored;
SELECT priority, payload FROM queues.p ORDER BY priority DESC NULLS LAST, payload;
CREATE TEMP TABLE got AS SELECT * FROM queue.dequeue('p', 10, '1 h');
SELECT priority, payload, body FROM got;

-- A retry keeps it, and comes before what is lower; a delayed message has its too.
SELECT queue.nack(receipt, delay => '0') FROM got WHERE priority IN (9, 2);
SELECT queue.ack_batch(array_agg(receipt)) FROM got WHERE priority IS NULL OR priority NOT IN (9, 2);
SELECT queue.enqueue('p', '"later"', priority => 5, delay => '1 h') IS NOT NULL AS stored;
SELECT queue.enqueue('p', '"now"', priority => 3) IS NOT NULL AS stored;
SELECT queue.clock_advance('1 h');
SELECT priority, payload, body, attempt FROM queue.pop('p', 10);

-- A dead letter keeps it.
SELECT queue.enqueue('p', '"dead"', priority => 6) IS NOT NULL AS stored;
SELECT queue.reject(receipt) FROM queue.dequeue('p');
SELECT priority, payload FROM queue.dequeue('p_dead');

-- With aging, a minute of waiting makes up for one priority.
SELECT queue.create('aging');
SELECT name, "default" FROM queue.options WHERE name IN ('priority_mode', 'aging_step');
SELECT queue.enqueue('aging', '"old low"', priority => 1) IS NOT NULL AS stored;
SELECT queue.clock_advance('150 s');
SELECT queue.enqueue('aging', '"new 3"', priority => 3) IS NOT NULL AS stored;
SELECT queue.enqueue('aging', '"new 4"', priority => 4) IS NOT NULL AS stored;
SELECT queue.enqueue('aging', '"new 2"', priority => 2) IS NOT NULL AS stored;
SELECT priority, payload FROM queue.pop('aging', 10);
-- The same one at a time, and with other steps.
SELECT queue.alter('aging', '{"aging_step": "10 s"}');
SELECT queue.enqueue('aging', '"old 1"', priority => 1) IS NOT NULL AS stored;
SELECT queue.clock_advance('25 s');
SELECT queue.enqueue('aging', '"new 3"', priority => 3) IS NOT NULL AS stored;
SELECT queue.enqueue('aging', '"new 4"', priority => 4) IS NOT NULL AS stored;
SELECT priority, payload FROM queue.pop('aging', 1);
SELECT priority, payload FROM queue.pop('aging', 1);
SELECT priority, payload FROM queue.pop('aging', 1);
SELECT count(*) FROM queue.dequeue('aging');

-- What is wrong.
SELECT queue.enqueue('p', '1', priority => 10);
SELECT queue.enqueue('p', '1', priority => -1);
INSERT INTO queues.p (payload, priority) VALUES ('1', 77);
SELECT queue.create('in_order', '{"ordered": true}');
SELECT queue.enqueue('in_order', '1', priority => 1);
SELECT queue.alter('p', '{"aging_step": "0 s"}');
SELECT queue.alter('p', '{"priority_mode": "weighted"}');

SELECT * FROM queue.check();
SELECT queue.drop(q, true) FROM unnest(ARRAY['p', 'aging', 'in_order']) q;
