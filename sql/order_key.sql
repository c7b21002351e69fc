-- The option key of dequeue: messages of one key alone, in order where the queue has one.
SET client_min_messages = error;
CREATE FUNCTION take(queue text, key text, n int = 1, wait interval = NULL) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(payload #>> '{}', ' ') FROM queue.dequeue(queue, n, '1 h', wait, jsonb_build_object('key', key)) $$;
CREATE FUNCTION settle(queue text, key text, n int, how text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m record; got text := '';
BEGIN
    FOR m IN SELECT * FROM queue.dequeue(queue, n, '1 h', options => jsonb_build_object('key', key)) LOOP
        EXECUTE format('SELECT queue.%s($1)', how) USING m.receipt;
        got := concat_ws(' ', nullif(got, ''), m.payload #>> '{}');
    END LOOP;
    RETURN got;
END $$;
CREATE FUNCTION send(queue text, VARIADIC names text[]) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(queue.enqueue(queue, to_jsonb(n), key => nullif(left(n, 1), '-'))) FROM unnest(names) n $$;

-- any queue
SELECT queue.create('any', '{"backoff": "none"}');
SELECT send('any', 'a1', 'b1', 'a2', '-1', 'b2', 'a3', '-2');
SELECT take('any', 'b'), take('any', 'c'), take('any', 'a', 2);
SELECT take('any', '', 10), take('any', '');
SELECT take('any', 'ab'), take('any', 'A');
SELECT take('any', NULL), take('any', 'b'), take('any', 'b');
SELECT queue.enqueue('any', '"long"', key => repeat('k', 512)) > 0 AS sent, queue.enqueue('any', '"longer"', key => repeat('k', 600)) > 0 AS sent;
SELECT take('any', repeat('k', 512), 10);
SELECT take('any', repeat('k', 513));
SELECT queue.dequeue('any', options => '{"key": 1}');
SELECT queue.dequeue('any', options => '{"key": ["a"]}');
-- among many, on many pages; those that are passed over stay
SELECT count(queue.enqueue('any', to_jsonb(n), key => CASE WHEN n % 1000 = 7 THEN 'rare' ELSE 'often' END)) FROM generate_series(1, 5000) n;
SELECT take('any', 'rare', 100), take('any', 'rare', 100);
SELECT count(*) FROM queue.dequeue('any', 10000, options => '{"key": "often"}');
SELECT take('any', NULL, 100);
-- waited for
SELECT queue.purge('any', '{"states": ["ready", "leased"]}') > 0 AS purged;
SELECT send('any', 'b1');
SELECT queue.enqueue('any', '"a1"', key => 'a', delay => '2 s') > 0 AS sent;
SELECT take('any', 'a', wait => '10 ms');
SELECT queue.clock_advance('2 s');
SELECT take('any', 'a', wait => '5 s');
SELECT queue.drop('any', true);

-- in order: a key of which nothing is known, with others before it and behind
SELECT queue.create('line', '{"ordered": true, "backoff": "none"}');
SELECT send('line', 'a1', 'b1', 'a2', 'c1', 'b2', 'b3', '-1', 'a3');
SELECT settle('line', 'b', 2, 'ack'), settle('line', '', 5, 'ack'), settle('line', 'd', 5, 'ack');
-- the next of it waits for its holder, others do not
BEGIN;
SELECT settle('line', 'b', 1, 'ack');
SELECT send('line', 'b4');
SELECT take('line', 'b'), take('line', 'c');
COMMIT;
SELECT settle('line', 'b', 9, 'ack');
-- what was passed over by others
SELECT payload FROM queue.dequeue('line');
SELECT take('line', 'a', 5);
SELECT payload FROM queue.dequeue('line');
SELECT queue.drop('line', true);

-- what came back comes first, whoever asks
SELECT queue.create('line', '{"ordered": true, "backoff": "none"}');
SELECT send('line', 'x1', 'a1', 'a2', 'x2', 'a3', 'b1');
SELECT settle('line', 'a', 1, 'nack');
SELECT settle('line', 'a', 5, 'ack'), settle('line', 'a', 5, 'ack');
SELECT settle('line', 'x', 1, 'release');
SELECT settle('line', 'x', 1, 'ack');
SELECT settle('line', NULL, 9, 'ack');
-- a delay of a retry holds the key
SELECT queue.alter('line', '{"backoff": "fixed", "backoff_base": "60 s", "backoff_jitter": 0}');
SELECT send('line', 'a1', 'a2', 'b1');
SELECT settle('line', 'a', 1, 'nack');
SELECT settle('line', 'a', 5, 'ack'), settle('line', 'b', 5, 'ack');
SELECT queue.clock_advance('61 s');
SELECT settle('line', 'a', 5, 'ack'), settle('line', 'a', 5, 'ack');
-- a message with a delay
SELECT queue.enqueue('line', '"a1"', key => 'a', delay => '5 s') > 0 AS sent, send('line', 'b1');
SELECT settle('line', 'a', 5, 'ack');
SELECT queue.clock_advance('6 s');
SELECT settle('line', 'a', 5, 'ack');
SELECT settle('line', 'b', 5, 'reject');
-- blocked keys
SELECT queue.alter('line', '{"on_dead": "block"}');
SELECT send('line', 'a1', 'a2', 'b1');
SELECT settle('line', 'a', 1, 'reject');
SELECT settle('line', 'a', 1, 'ack'), settle('line', 'b', 1, 'ack');
SELECT queue.unblock('line', 'a');
SELECT settle('line', 'a', 1, 'ack');
-- the key is rolled back
SELECT send('line', 'b1', 'a1', 'a2');
BEGIN;
SELECT take('line', 'a', 5);
ROLLBACK;
SELECT queue.clock_advance('61 s');
SELECT take('line', 'a', wait => '5 s');
SELECT queue.drop('line', true);

-- many pages: each key in its order, whether asked for or not
SELECT queue.create('line', '{"ordered": true, "backoff": "none"}');
SELECT count(queue.enqueue('line', to_jsonb(n), key => (n % 7)::text)) FROM generate_series(1, 3000) n;
CREATE TEMPORARY TABLE got (number int GENERATED ALWAYS AS IDENTITY, n int);
DO $$
DECLARE
    m record; k int; i int := 0; back boolean;
BEGIN
    PERFORM setseed(0.5);
    LOOP
        k := floor(random() * 9);
        back := false;
        FOR m IN SELECT * FROM queue.dequeue('line', 1 + k, options => CASE WHEN k < 7 THEN jsonb_build_object('key', k::text) END) ORDER BY id LOOP
            -- a message that goes back takes those of its key behind it along
            back := back OR random() < 0.1;
            IF back THEN
                PERFORM queue.release_batch(ARRAY[m.receipt]);
            ELSE
                PERFORM queue.ack(m.receipt);
                INSERT INTO got (n) VALUES (m.payload::int);
            END IF;
        END LOOP;
        i := i + 1;
        EXIT WHEN i > 20000 OR (SELECT count(*) FROM got) = 3000;
        COMMIT;
    END LOOP;
END $$;
SELECT count(*), count(DISTINCT n) FROM got;
SELECT count(*) AS out_of_order FROM (SELECT n, lag(n) OVER (PARTITION BY n % 7 ORDER BY number) AS before FROM got) g WHERE before > n;
SELECT queue.drop('line', true);
DROP FUNCTION take, settle, send;
