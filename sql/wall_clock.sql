-- Somebody sets the wall clock: leases run on, delays and times to live follow it.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
SELECT queue.create('clock', '{"backoff": "none"}');

-- forwards by an hour: a lease of ten minutes ends ten minutes after it began
SELECT queue.enqueue('clock', '"leased"') > 0 AS sent;
SELECT receipt FROM queue.dequeue('clock', lease => '10 min') \gset
SELECT queue.clock_advance('1 h', wall_only => true);
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT state, attempt FROM queue.leases WHERE queue = 'clock';
SELECT queue.clock_advance('9 min');
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT queue.clock_advance('61 s');
SELECT attempt, last_error FROM queue.dequeue('clock', lease => '10 min', wait => '5 s');
-- backwards: no later
SELECT queue.clock_advance('-1 h', wall_only => true);
SELECT queue.clock_advance('9 min');
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT queue.clock_advance('61 s');
SELECT attempt, last_error, queue.ack(receipt) FROM queue.dequeue('clock', wait => '5 s');
-- an old receipt holds nothing, an extended lease lasts from now on
SELECT status FROM queue.try_ack(ARRAY[:'receipt']::uuid[]);
SELECT queue.enqueue('clock', '"extended"') > 0 AS sent;
SELECT receipt FROM queue.dequeue('clock', lease => '1 min') \gset
SELECT queue.clock_advance('2 h', wall_only => true);
SELECT queue.extend(:'receipt', '5 min') IS NOT NULL AS extended;
SELECT queue.clock_advance('4 min');
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT queue.ack(:'receipt');

-- a delay: over at once if the clock is set past it, longer if it is set back
SELECT queue.enqueue('clock', '"soon"', delay => '1 h') > 0 AS sent;
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT queue.clock_advance('61 min', wall_only => true);
SELECT payload, queue.ack(receipt) FROM queue.dequeue('clock', wait => '5 s');
SELECT queue.enqueue('clock', '"late"', delay => '10 min') > 0 AS sent;
SELECT queue.clock_advance('-30 min', wall_only => true);
SELECT queue.clock_advance('11 min');
SELECT count(*) AS too_early FROM queue.dequeue('clock');
SELECT state FROM queues.clock;
SELECT queue.clock_advance('30 min');
SELECT payload, queue.ack(receipt) FROM queue.dequeue('clock', wait => '5 s');
-- a failure that waits for its next attempt
SELECT queue.enqueue('clock', '"failed"') > 0 AS sent;
SELECT queue.nack(receipt, delay => '1 h') FROM queue.dequeue('clock');
SELECT queue.clock_advance('61 min', wall_only => true);
SELECT payload, attempt, queue.ack(receipt) FROM queue.dequeue('clock', wait => '5 s');

-- a time to live
SELECT queue.enqueue('clock', '"expires"', ttl => '1 h') > 0 AS sent;
SELECT queue.clock_advance('61 min', wall_only => true);
SELECT count(*) AS alive FROM queue.dequeue('clock');
SELECT payload, headers -> 'queue.death' ->> 'reason' AS reason, queue.ack(receipt) FROM queue.dequeue('clock_dead', wait => '5 s');
SELECT queue.enqueue('clock', '"lives longer"', ttl => '1 h') > 0 AS sent;
SELECT queue.clock_advance('-1 h', wall_only => true);
SELECT queue.clock_advance('110 min');
SELECT payload, queue.release(receipt) FROM queue.dequeue('clock');
SELECT queue.clock_advance('11 min');
SELECT count(*) AS alive FROM queue.dequeue('clock');
SELECT payload, headers -> 'queue.death' ->> 'reason' AS reason, queue.ack(receipt) FROM queue.dequeue('clock_dead', wait => '5 s');
SELECT value::int >= 8 AS steps_were_seen FROM queue.health() WHERE "check" = 'clock';
SELECT * FROM queue.check();
SELECT queue.drop('clock');
