-- What monitoring shows.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
SELECT queue.create('Watched "one"', '{"segment_size": "1MB", "backoff": "fixed", "backoff_base": "1 h", "backoff_jitter": 0}');
SELECT count(queue.enqueue('Watched "one"', to_jsonb(n))) FROM generate_series(1, 8) n;
SELECT queue.enqueue('Watched "one"', '9', delay => '1 h') > 0 AS sent;
SELECT queue.ack(receipt) FROM queue.dequeue('Watched "one"');
SELECT queue.nack(receipt, 'broken') FROM queue.dequeue('Watched "one"');
SELECT queue.reject(receipt) FROM queue.dequeue('Watched "one"');
SELECT count(*) FROM queue.dequeue('Watched "one"', 2, options => '{"consumer": "worker 1"}');
SELECT queue.cancel('Watched "one"', id) FROM queues."Watched ""one""" WHERE payload = '8';
SELECT queue, ready, leased, delayed, failed, dead, total_enqueued, total_dequeued, total_acked, total_failed, total_dead, total_expired, total_cancelled, oldest_ready_age >= '0 s' AS aged
FROM queue.stats WHERE queue LIKE 'Watched%' ORDER BY queue COLLATE "C";
SELECT queue, state, attempt, owner = current_user::regrole AS mine, pid = pg_backend_pid() AS here, consumer, until - since AS lease FROM queue.leases ORDER BY id;
SELECT queue, number, state, size > 0 AS has_size, live, kept_because FROM queue.segments WHERE queue LIKE 'Watched%' AND state <> 'reserve' ORDER BY queue COLLATE "C";
SELECT queue, view, owner = current_user::regrole AS mine, dead_letter, paused_dequeue, paused_enqueue FROM queue.queues WHERE queue LIKE 'Watched%' ORDER BY queue COLLATE "C";
SELECT state, count(*) FROM queues."Watched ""one""" GROUP BY state ORDER BY state;
SELECT "check", status, hint FROM queue.health() WHERE "check" NOT IN ('horizon') ORDER BY "check" COLLATE "C";
SELECT * FROM queue.check();
SELECT queue.drop('Watched "one"', true);
