-- Bad input: each ends with the SQLSTATE it should, and leaves nothing behind.
CREATE EXTENSION IF NOT EXISTS queue;
SET client_min_messages = error;
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text;
BEGIN
    EXECUTE call;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || message || CASE WHEN detail <> '' THEN ' / ' || detail ELSE '' END
        || CASE WHEN hint <> '' THEN ' / ' || hint ELSE '' END;
END $$;
SELECT queue.create('err');
SELECT queue.enqueue('err', '"held"') IS NOT NULL AS sent;
SELECT receipt FROM queue.dequeue('err') \gset
\pset format unaligned
\pset tuples_only on

-- NULL wherever a value is needed
SELECT call, outcome('SELECT queue.' || call) FROM unnest(ARRAY[
    'create(NULL)', 'create(''n'', NULL)', 'alter(NULL, ''{}'')', 'alter(''err'', NULL)', 'drop(NULL)', 'drop(''err'', NULL)',
    'pause(NULL)', 'pause(''err'', NULL)', 'resume(NULL)', 'resume(''err'', NULL)', 'purge(NULL)', 'purge(''err'', NULL)',
    'cancel(NULL, 1)', 'cancel(''err'', NULL)', 'enqueue(NULL, ''1'')', 'enqueue(''err'', NULL)', 'enqueue_bytes(''err'', NULL)',
    'enqueue_unique(''err'', NULL)', 'enqueue_batch(''err'', NULL)', 'enqueue_batch(NULL, ''{}'')', 'enqueue_bytes_batch(''err'', NULL)',
    'enqueue_bytes_batch(''err'', ARRAY[NULL]::bytea[])', 'dequeue(NULL)', 'dequeue(''err'', NULL)', 'pop(NULL)', 'pop(''err'', NULL)',
    'ack(NULL)', 'ack_batch(NULL)', 'try_ack(NULL)', 'try_ack(ARRAY[NULL]::uuid[])', 'nack(NULL)', 'nack_batch(NULL)',
    'nack_batch(ARRAY[NULL]::uuid[])', 'reject(NULL)', 'release(NULL)', 'release_batch(NULL)', 'extend(NULL)', 'extend_batch(NULL)',
    'extend_batch(ARRAY[NULL]::uuid[])']) WITH ORDINALITY AS calls(call, n) ORDER BY n;

-- a queue that does not exist
SELECT call, outcome('SELECT queue.' || call) FROM unnest(ARRAY[
    'alter(''nowhere'', ''{}'')', 'drop(''nowhere'')', 'pause(''nowhere'')', 'resume(''nowhere'')', 'purge(''nowhere'')', 'cancel(''nowhere'', 1)',
    'enqueue(''nowhere'', ''1'')', 'enqueue_bytes(''nowhere'', '''')', 'enqueue_unique(''nowhere'', ''1'')', 'enqueue_batch(''nowhere'', ''{}'')',
    'enqueue_bytes_batch(''nowhere'', ''{}'')', 'dequeue(''nowhere'')', 'pop(''nowhere'')', 'enqueue(''ERR'', ''1'')', 'enqueue(''"err"'', ''1'')',
    'enqueue(''queues.err'', ''1'')', 'enqueue('''', ''1'')']) WITH ORDINALITY AS calls(call, n) ORDER BY n;

-- receipts that hold nothing: garbage, another version, a slot that is not there
SELECT call, split_part(outcome(format('SELECT queue.' || call, receipt)), ':', 1) FROM unnest(ARRAY[
    'ack(%L)', 'ack_batch(ARRAY[%L]::uuid[])', 'nack(%L)', 'reject(%L)', 'release(%L)', 'extend(%L)']) WITH ORDINALITY AS calls(call, n),
    unnest(ARRAY['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-8fff-bfff-ffffffffffff', '0e37df36-f698-11e6-8dd4-cb9ced3df976']) AS receipt
ORDER BY n, receipt;
SELECT queue.ack('garbage');
SELECT status FROM queue.try_ack('{00000000-0000-0000-0000-000000000000, ffffffff-ffff-8fff-bfff-ffffffffffff, 00000000-0000-8000-8000-000000000000}');
SELECT status FROM queue.nack_batch('{00000000-0000-0000-0000-000000000000, 00000000-0000-8000-8000-000000000000}');
SELECT status FROM queue.release_batch('{00000000-0000-0000-0000-000000000000, 00000000-0000-8000-8000-000000000000}');
SELECT status FROM queue.extend_batch('{00000000-0000-0000-0000-000000000000, 00000000-0000-8000-8000-000000000000}');
SELECT count(*) FROM queue.try_ack('{}');

-- numbers, times and sizes out of bounds
SELECT call, outcome('SELECT queue.' || replace(call, 'RECEIPT', quote_literal(:'receipt'))) FROM unnest(ARRAY[
    'dequeue(''err'', 0)', 'dequeue(''err'', -1)', 'dequeue(''err'', 10001)', 'dequeue(''err'', 2147483647)', 'pop(''err'', 0)', 'pop(''err'', -1)', 'pop(''err'', 10001)',
    'dequeue(''err'', lease => ''-1 s'')', 'dequeue(''err'', lease => ''2000 years'')', 'dequeue(''err'', wait => ''-1 s'')',
    'dequeue(''err'', options => ''[]'')', 'dequeue(''err'', options => ''{"max_bytes": 0}'')', 'dequeue(''err'', options => ''{"max_bytes": "many"}'')',
    'dequeue(''err'', options => ''{"consumer": 1}'')', 'dequeue(''err'', options => jsonb_build_object(''consumer'', repeat(''c'', 64)))', 'enqueue(''err'', ''1'', delay => ''-1 us'')', 'enqueue(''err'', ''1'', delay => ''5000 years'')',
    'enqueue(''err'', ''1'', ttl => ''-1 us'')', 'enqueue(''err'', ''1'', deliver_at => ''infinity'')', 'enqueue(''err'', ''1'', options => ''1'')',
    'enqueue(''err'', ''1'', options => ''{"max_attempts": -1}'')', 'enqueue(''err'', ''1'', options => ''{"max_attempts": 1.5}'')', 'enqueue(''err'', ''1'', options => ''{"max_attempts": "few"}'')', 'enqueue(''err'', ''1'', options => ''{"max_attempts": true}'')',
    'create(''n'', ''{"lease_timeout": "foo"}'')', 'create(''n'', ''{"segment_size": "foo"}'')', 'create(''n'', ''{"backoff_list": []}'')', 'create(''n'', ''{"backoff_list": ["foo"]}'')', 'create(''n'', ''{"max_attempts": 1.5}'')',
    'enqueue_batch(''err'', ''{{1,2},{3,4}}'')', 'enqueue_batch(''err'', ''{1,2}'', headers => ''{null}'')',
    'purge(''err'', ''{"older_than": "-1 s"}'')', 'purge(''err'', ''{"older_than": "yesterday"}'')', 'purge(''err'', ''{"states": "ready"}'')', 'purge(''err'', ''{"states": [1]}'')', 'purge(''err'', ''{"states": ["ready", "gone"]}'')', 'purge(''err'', ''{"states": [["ready"]]}'')',
    'pause(''err'', ''left'')', 'enqueue(''err'', ''1'', options => ''{"on_conflict": "ignore"}'')', 'enqueue(''err'', ''1'', options => ''{"unique_key": 1}'')', 'enqueue_batch(''err'', ''{1}'', dedup_keys => ''{a,b}'')', 'clock_advance(''500 years'')', 'clock_advance(''-1 s'')', '_break(''err'', ''everything'')',
    'release(RECEIPT, ''-1 s'')', 'nack(RECEIPT, delay => ''-1 s'')', 'extend(RECEIPT, ''-1 s'')']) WITH ORDINALITY AS calls(call, n) ORDER BY n;

-- what is there in name only
SELECT name, outcome(format('SELECT queue.create(''later'', %L)', jsonb_build_object(name, to_jsonb("default")))) LIKE '0A000 option "' || name || '" is not implemented yet%' AS refused
FROM queue.options WHERE NOT available ORDER BY name;
SELECT call, outcome('SELECT queue.' || replace(call, 'RECEIPT', quote_literal(:'receipt'))) FROM unnest(ARRAY[
    'nack(RECEIPT, options => ''{"error_class": "k"}'')', 'nack(RECEIPT, options => ''{"progress": 1}'')']) WITH ORDINALITY AS calls(call, n) ORDER BY n;

-- a number may be text, as for a queue
SELECT queue.enqueue('err', '"once"', options => '{"max_attempts": "1"}') > 0 AS sent;
SELECT payload, queue.nack(receipt) FROM queue.dequeue('err', options => '{"max_bytes": "5"}');
SELECT queue.purge('err_dead');

-- each function says its own name
SET default_transaction_read_only = on;
SELECT call, outcome('SELECT queue.' || call) FROM unnest(ARRAY['enqueue(''err'', ''1'')', 'enqueue_bytes(''err'', '''')', 'enqueue_unique(''err'', ''1'')',
    'enqueue_batch(''err'', ''{1}'')', 'enqueue_bytes_batch(''err'', ''{a}'')']) WITH ORDINALITY AS calls(call, n) ORDER BY n;
RESET default_transaction_read_only;

-- UPDATE is refused also where it would change nothing; what has the name of a queue is none
UPDATE queues.err SET key = 'k' WHERE false;
UPDATE queues.err SET key = 'k';
CREATE TABLE queues.err_table ();
SELECT queue.create('err_table');
SELECT queue.create('err_table', '{"if_not_exists": true}');
DROP TABLE queues.err_table;

-- after all that the message is held as before, and nothing came or went
SELECT queue.ack(:'receipt');
SELECT count(*) FROM queues.err;
SELECT ready, leased, delayed, failed FROM queue.stats WHERE queue = 'err';
SELECT * FROM queue.check();
SELECT queue.drop('err');
DROP FUNCTION outcome;
