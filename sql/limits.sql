-- Limits: in flight and rates, of queues, consumers and keys.
SELECT queue.create('l');

-- In flight of the queue: fewer come, and no error; an end of any kind makes room.
SELECT queue.limit('l', 'queue', in_flight => 3);
SELECT count(*) FROM (SELECT queue.enqueue('l', to_jsonb(n)) FROM generate_series(1, 10) n) s;
CREATE TEMP TABLE got AS SELECT * FROM queue.dequeue('l', 10, '1 h');
SELECT payload FROM got;
SELECT count(*) FROM queue.dequeue('l', 10);
SELECT scope, name, in_flight, leased, waiting FROM queue.limits;
SELECT queue.ack(receipt) FROM got WHERE payload = '1';
SELECT queue.release(receipt) FROM got WHERE payload = '2';
SELECT payload FROM queue.dequeue('l', 10, '2 h');
SELECT count(*) FROM queue.dequeue('l', 10);
-- A nack and a lease that ran out make room too; what failed waits for its retry.
SELECT queue.nack(receipt, delay => '1 day') FROM got WHERE payload = '3';
SELECT payload FROM queue.dequeue('l', 10, '2 h');
SELECT count(*) FROM queue.dequeue('l', 10);
SELECT queue.clock_advance('2 h 1 s');
SELECT count(*) FROM queue.dequeue('l', 10, '2 h');
SELECT leased FROM queue.limits;
-- A rollback as well.
SELECT queue.clock_advance('3 h');
BEGIN;
SELECT count(*) FROM queue.dequeue('l', 10, '1 h');
SELECT count(*) FROM queue.dequeue('l', 10, '1 h');
ROLLBACK;
SELECT leased FROM queue.limits;
-- Raised, lowered below what is held, and removed.
SELECT queue.clock_advance('1 h');
SELECT queue.limit('l', 'queue', in_flight => 5);
SELECT count(*) FROM queue.dequeue('l', 10, '1 h');
SELECT queue.limit('l', 'queue', in_flight => 2);
SELECT count(*) FROM queue.dequeue('l', 10, '1 h');
SELECT in_flight, leased FROM queue.limits;
SELECT queue.limit('l', 'queue');
-- (What the worker is just writing comes a moment later.)
DO $$ BEGIN
	FOR i IN 1 .. 400 LOOP
		PERFORM FROM queue.dequeue('l', 10, '1 h');
		EXIT WHEN (SELECT count(*) FROM queue.leases WHERE queue = 'l' AND state = 'leased') = 8;
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
SELECT * FROM queue.limits;
-- What was leased before there was a limit counts.
SELECT count(*) AS leased FROM queue.leases WHERE queue = 'l' AND state = 'leased' \gset
SELECT :leased AS leased;
SELECT queue.limit('l', 'queue', in_flight => 100);
SELECT count(*) FROM queue.dequeue('l', 1);
SELECT leased = :leased AS counted FROM queue.limits;
SELECT queue.drop('l', true);

-- Of each consumer, and of one by name.
SELECT queue.create('c');
SELECT queue.limit('c', 'consumer', in_flight => 1);
SELECT queue.limit('c', 'consumer', 'big', in_flight => 3);
SELECT count(*) FROM (SELECT queue.enqueue('c', to_jsonb(n)) FROM generate_series(1, 10) n) s;
SELECT payload FROM queue.dequeue('c', 10, '1 h', options => '{"consumer": "a"}');
SELECT payload FROM queue.dequeue('c', 10, '1 h', options => '{"consumer": "a"}');
SELECT payload FROM queue.dequeue('c', 10, '1 h', options => '{"consumer": "big"}');
SELECT payload FROM queue.dequeue('c', 10, '1 h', options => '{"consumer": "b"}');
SELECT name, in_flight, leased, waiting FROM queue.limits ORDER BY name NULLS FIRST;
SELECT queue.drop('c', true);

-- Of each key: others go on, and come in their order; one by name; without a key there is none.
SELECT queue.create('k');
SELECT queue.limit('k', 'key', in_flight => 1);
SELECT queue.limit('k', 'key', 'b', in_flight => 2);
SELECT count(*) FROM (SELECT queue.enqueue('k', to_jsonb(k || n), key => nullif(k, 'none')) FROM generate_series(1, 4) n, unnest(ARRAY['a', 'b', 'none']) k ORDER BY n) s;
CREATE TEMP TABLE had AS SELECT * FROM queue.dequeue('k', 100, '1 h');
SELECT payload FROM had;
SELECT count(*) FROM queue.dequeue('k', 100);
SELECT name, in_flight, leased, waiting FROM queue.limits ORDER BY name NULLS FIRST;
SELECT queue.ack(receipt) FROM had WHERE payload = '"a1"';
SELECT payload FROM queue.dequeue('k', 100, '1 h');
SELECT queue.nack(receipt, delay => '0') FROM had WHERE payload = '"b1"';
SELECT payload FROM queue.dequeue('k', 100, '1 h');
SELECT count(*) FROM queue.dequeue('k', 100);
-- No limit any more: all that was passed over is found.
SELECT queue.limit('k', 'key');
SELECT queue.limit('k', 'key', 'b');
SELECT payload ->> 0 FROM queue.dequeue('k', 100, '1 h') ORDER BY 1;
SELECT queue.drop('k', true);

-- A rate: so much at once, then so much a second; a message may cost more or nothing.
SELECT queue.create('r');
SELECT queue.limit('r', 'queue', rate => 2, burst => 4);
SELECT count(*) FROM (SELECT queue.enqueue('r', to_jsonb(n)) FROM generate_series(1, 20) n) s;
SELECT count(*) FROM queue.pop('r', 100);
SELECT count(*) FROM queue.pop('r', 100);
SELECT tokens < 1 AS used, waiting FROM queue.limits;
SELECT queue.clock_advance('1 s');
SELECT count(*) FROM queue.pop('r', 100);
SELECT queue.clock_advance('1 h');
SELECT count(*) FROM queue.pop('r', 100);
SELECT queue.purge('r');
SELECT queue.enqueue('r', to_jsonb(n), options => jsonb_build_object('cost', n)) IS NOT NULL AS stored FROM unnest(ARRAY[3, 0, 2, 9]) n;
SELECT queue.clock_advance('1 h');
SELECT payload FROM queue.pop('r', 100);
SELECT queue.clock_advance('500 ms');
SELECT payload FROM queue.pop('r', 100);
-- One that costs more than the bucket holds comes when it is full, and leaves a debt.
SELECT queue.clock_advance('2 s');
SELECT payload FROM queue.pop('r', 100);
SELECT queue.enqueue('r', '"after"') IS NOT NULL AS stored;
SELECT queue.clock_advance('2900 ms');
SELECT payload FROM queue.pop('r', 100);
SELECT queue.clock_advance('200 ms');
SELECT payload FROM queue.pop('r', 100);
SELECT queue.drop('r', true);

-- A rate by key: each has its own.
SELECT queue.create('rk');
SELECT queue.limit('rk', 'key', rate => 1, burst => 2);
SELECT count(*) FROM (SELECT queue.enqueue('rk', to_jsonb(k || n), key => k) FROM generate_series(1, 5) n, unnest(ARRAY['a', 'b']) k ORDER BY n) s;
SELECT payload FROM queue.pop('rk', 100);
SELECT queue.clock_advance('1 s');
SELECT payload ->> 0 FROM queue.pop('rk', 100) ORDER BY 1;
SELECT count(*) FROM queue.pop('rk', 100);
SELECT queue.clock_advance('10 s');
SELECT payload ->> 0 FROM queue.pop('rk', 100) ORDER BY 1;
SELECT queue.drop('rk', true);

-- Limits of an ordered queue.
SELECT queue.create('o', '{"ordered": true}');
SELECT queue.limit('o', 'queue', in_flight => 2);
SELECT count(*) FROM (SELECT queue.enqueue('o', to_jsonb(k || n), key => k) FROM generate_series(1, 3) n, unnest(ARRAY['a', 'b', 'c']) k ORDER BY n, k) s;
CREATE TEMP TABLE held AS SELECT * FROM queue.dequeue('o', 2, '1 h');
SELECT payload FROM held;
SELECT count(*) FROM queue.dequeue('o', 9);
SELECT queue.ack(receipt) FROM held WHERE payload = '"a1"';
SELECT payload FROM queue.dequeue('o', 9, '1 h');
SELECT queue.limit('o', 'queue');
SELECT payload FROM queue.dequeue('o', 9, '1 h');
SELECT queue.limit('o', 'key', in_flight => 1);
SELECT queue.drop('o', true);

-- Fair share: keys take turns, by their weights.
SELECT queue.create('f', '{"fair_share": true}');
SELECT count(*) FROM (SELECT queue.enqueue('f', to_jsonb('noisy ' || n), key => 'noisy') FROM generate_series(1, 1000) n) s;
SELECT queue.enqueue('f', to_jsonb(k || ' ' || n), key => k) IS NOT NULL AS stored FROM generate_series(1, 2) n, unnest(ARRAY['quiet', 'calm']) k ORDER BY n;
SELECT payload FROM queue.pop('f', 1);
SELECT payload FROM queue.pop('f', 1);
SELECT payload FROM queue.pop('f', 1);
SELECT payload FROM queue.pop('f', 1);
SELECT payload ->> 0 FROM queue.pop('f', 4) ORDER BY 1;
SELECT queue.limit('f', 'key', 'noisy', weight => 3);
SELECT count(*) FROM (SELECT queue.enqueue('f', to_jsonb('quiet ' || n), key => 'quiet') FROM generate_series(1, 100) n) s;
SELECT left(payload ->> 0, 5) AS key, count(*) FROM queue.pop('f', 40) GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM queue.pop('f', 2000);
SELECT queue.drop('f', true);

-- What is wrong.
SELECT queue.create('w');
SELECT queue.limit('w', 'tenant', in_flight => 1);
SELECT queue.limit('w', 'queue', in_flight => 0);
SELECT queue.limit('w', 'queue', rate => 0);
SELECT queue.limit('w', 'queue', rate => 'NaN');
SELECT queue.limit('w', 'queue', burst => 1);
SELECT queue.limit('w', 'queue', 'name', in_flight => 1);
SELECT queue.limit('w', 'queue', weight => 1);
SELECT queue.limit('w', 'key', 'k', weight => 0.01);
SELECT queue.limit('w', NULL, in_flight => 1);
SELECT queue.limit(NULL, 'queue', in_flight => 1);
SELECT queue.limit('w', 'consumer', repeat('x', 64), in_flight => 1);
SELECT queue.enqueue('w', '1', options => '{"cost": -1}');
SELECT queue.create('wo', '{"ordered": true, "fair_share": true}');
SELECT * FROM queue.check();
SELECT queue.drop('w', true);
