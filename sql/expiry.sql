-- Time to live: what is not delivered in time ends in the dead-letter queue, or is dropped.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
-- The worker writes soon what has expired.
CREATE PROCEDURE await_count(q text, n int) LANGUAGE plpgsql AS $$
DECLARE
    there int;
BEGIN
    FOR i IN 1 .. 600 LOOP
        EXECUTE format('SELECT count(*) FROM queues.%I', q) INTO there;
        EXIT WHEN there = n;
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
SELECT queue.create('brief', '{"message_ttl": "3 min", "backoff": "fixed", "backoff_base": "10 s", "backoff_jitter": 0}');
SELECT queue.enqueue('brief', '"by the queue"') > 0 AS sent;
SELECT queue.enqueue('brief', '"its own"', ttl => '2 min') > 0 AS sent;
SELECT queue.enqueue('brief', '"delayed"', delay => '30 s') > 0 AS sent;
SELECT array_length(queue.enqueue_batch('brief', '{"\"batch\""}', ttl => '3 min'), 1) AS sent;
INSERT INTO queues.brief (payload, ttl) VALUES ('"view"', '4 min');
SELECT payload, expires_at - enqueued_at AS lives FROM queues.brief ORDER BY id;
SELECT queue.clock_advance('121 s');
SELECT payload, last_error, headers -> 'queue.death' ->> 'reason' AS reason, headers -> 'queue.death' ->> 'attempts' AS attempts, expires_at
FROM queue.dequeue('brief_dead', wait => '5 s');
SELECT payload FROM queue.dequeue('brief', 10) ORDER BY id;
SELECT total_expired FROM queue.stats WHERE queue = 'brief';

-- what is held when its time is over can still be acked; when it fails it has expired
SELECT queue.purge('brief', '{"states": ["leased"]}') AS purged, queue.purge('brief_dead', '{"states": ["leased"]}') AS purged_dead;
SELECT count(queue.enqueue('brief', to_jsonb(n), ttl => '5 s')) FROM generate_series(1, 2) n;
CREATE TEMP TABLE held AS SELECT * FROM queue.dequeue('brief', 2, '10 min');
SELECT queue.clock_advance('6 s');
SELECT queue.ack(receipt) FROM held WHERE payload = '1';
SELECT queue.nack(receipt, 'too late') FROM held WHERE payload = '2';
SELECT queue.clock_advance('11 s');
SELECT payload, headers -> 'queue.death' ->> 'reason' AS reason, headers -> 'queue.death' ->> 'attempts' AS attempts, last_error FROM queue.dequeue('brief_dead', wait => '5 s');
SELECT count(*) FROM queues.brief;
SELECT queue.purge('brief_dead', '{"states": ["leased"]}');

-- dropped instead
SELECT queue.alter('brief', '{"on_expiry": "drop", "message_ttl": null}');
SELECT queue.enqueue('brief', '"for ever"') > 0 AS sent;
SELECT queue.enqueue('brief', '"an hour"', ttl => '1 h') > 0 AS sent;
SELECT queue.clock_advance('61 min');
CALL await_count('brief', 1);
SELECT payload, expires_at FROM queues.brief;
SELECT count(*) AS dead FROM queues.brief_dead;
SELECT total_expired, total_dead FROM queue.stats WHERE queue = 'brief';

-- in a dead-letter queue its own time counts, from when the message comes; then it is dropped
SELECT queue.alter('brief', '{"on_expiry": null}'), queue.alter('brief_dead', '{"message_ttl": "1 h"}'), queue.purge('brief') AS purged;
SELECT queue.enqueue('brief', '"rejected"', ttl => '10 min') > 0 AS sent;
SELECT queue.reject(receipt) FROM queue.dequeue('brief');
SELECT queue.enqueue('brief', '"expired"', ttl => '1 s') > 0 AS sent;
SELECT queue.clock_advance('30 min');
CALL await_count('brief_dead', 2);
SELECT payload, expires_at - enqueued_at BETWEEN '60 min' AND '89 min' AS an_hour, expires_at - enqueued_at >= '90 min' AS an_hour_later FROM queues.brief_dead ORDER BY id;
SELECT queue.alter('brief_dead', '{"message_ttl": null}');
SELECT queue.clock_advance('1 h');
CALL await_count('brief_dead', 0);
SELECT total_expired, total_dead FROM queue.stats WHERE queue = 'brief_dead';
SELECT * FROM queue.check();
SELECT queue.drop('brief', true);
DROP PROCEDURE await_count;
