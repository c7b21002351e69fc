-- Much at a time: a batch stops at 64 MB, a look at a few messages reads a few pages.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
SELECT queue.create('large', '{"dead_letter": ""}');
SELECT count(queue.enqueue_bytes('large', convert_to(repeat(n % 10 || 'b', 750000), 'UTF8'))) AS sent FROM generate_series(1, 64) n;
SELECT count(*), sum(octet_length(body)) <= 64 * 1024 * 1024 AS within, sum(octet_length(body)) > 62 * 1024 * 1024 AS full FROM queue.dequeue('large', 1000);
SELECT count(*) FROM queue.pop('large', 1000);
SELECT queue.purge('large', '{"states": ["leased"]}');
-- what is larger than that comes alone, and stops nobody
SET queue.max_message_size = '80MB';
SELECT queue.enqueue('large', '"before"') > 0 AS sent;
SELECT queue.enqueue_bytes('large', convert_to(repeat('x', 70 * 1024 * 1024), 'UTF8')) > 0 AS sent;
SELECT queue.enqueue('large', '"after"') > 0 AS sent;
SELECT payload, octet_length(body) AS bytes FROM queue.pop('large', 10);
SELECT payload, octet_length(body) AS bytes FROM queue.pop('large', 10);
SELECT payload, octet_length(body) AS bytes FROM queue.pop('large', 10);
RESET queue.max_message_size;
-- a bound of one's own
SELECT count(queue.enqueue('large', to_jsonb(repeat('y', 1000)))) AS sent FROM generate_series(1, 10);
SELECT count(*) FROM queue.dequeue('large', 10, options => '{"max_bytes": 5000}') d, queue.ack(d.receipt);
SELECT count(*) FROM queue.dequeue('large', 10, options => '{"max_bytes": 1}') d, queue.ack(d.receipt);
SELECT queue.purge('large');

-- a peek streams: with LIMIT it reads few of some thousand pages, and it spills nothing
SELECT count(queue.enqueue_bytes('large', (SELECT string_agg(sha256(int4send(n * 100 + i)), '') FROM generate_series(1, 60) i))) AS sent FROM generate_series(1, 8000) n;
SELECT sum(size) / 8192 > 2000 AS many_pages FROM queue.segments WHERE queue = 'large';
CREATE FUNCTION cost_of(query text, OUT pages int, OUT spilled int) LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
    plan := plan #> '{0,Plan}';
    pages := (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
    spilled := (plan ->> 'Temp Written Blocks')::int;
END $$;
SET work_mem = '64kB';
SELECT pages < 100 AS few, spilled FROM cost_of('SELECT id, body FROM queues.large LIMIT 10');
SELECT pages > 2000 AS all_of_them, spilled FROM cost_of('SELECT id, body FROM queues.large');
RESET work_mem;
DROP FUNCTION cost_of;
SELECT * FROM queue.check();
SELECT queue.drop('large', true);
