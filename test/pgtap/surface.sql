-- The API: each function with its exact signature, types, columns of views.
-- What stands here stays as it is from the first version on.
CREATE EXTENSION IF NOT EXISTS queue;
CREATE EXTENSION IF NOT EXISTS pgtap;
BEGIN;
SELECT no_plan();

SELECT results_eq(
$$SELECT p.proname::text COLLATE "default" || '(' || pg_get_function_arguments(p.oid) || ') ' || CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'returns ' || pg_get_function_result(p.oid) END
  FROM pg_proc p WHERE p.pronamespace = 'queue'::regnamespace AND p.proname !~ '^_' ORDER BY p.proname COLLATE "C"$$,
ARRAY[
'ack(receipt uuid) returns void',
'ack_batch(receipts uuid[]) returns integer',
'adopt() returns void',
'alter(queue text, options jsonb) returns void',
'alter_relay(relay text, options jsonb) returns void',
'blocked_keys(queue text) returns TABLE(key text, message bigint, since timestamp with time zone, on_dead text)',
'cancel(queue text, id bigint) returns boolean',
'check(OUT queue text, OUT rule text, OUT detail text) returns SETOF record',
'clock_advance(by interval, wall_only boolean DEFAULT false) returns void',
$$create(queue text, options jsonb DEFAULT '{}'::jsonb) returns regclass$$,
$$create_relay(relay text, queue text, server text, options jsonb DEFAULT '{}'::jsonb) returns void$$,
'dequeue(queue text, max_messages integer DEFAULT 1, lease interval DEFAULT NULL::interval, wait interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb) returns SETOF queue.message',
'drop(queue text, force boolean DEFAULT false) returns void',
'drop_relay(relay text) returns void',
'enqueue(queue text, payload jsonb, key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, priority integer DEFAULT NULL::integer, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, dedup_key text DEFAULT NULL::text, options jsonb DEFAULT NULL::jsonb) returns bigint',
'enqueue_batch(queue text, payloads jsonb[], keys text[] DEFAULT NULL::text[], headers jsonb[] DEFAULT NULL::jsonb[], dedup_keys text[] DEFAULT NULL::text[], priority integer DEFAULT NULL::integer, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb) returns bigint[]',
'enqueue_bytes(queue text, body bytea, key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, priority integer DEFAULT NULL::integer, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, dedup_key text DEFAULT NULL::text, options jsonb DEFAULT NULL::jsonb) returns bigint',
'enqueue_bytes_batch(queue text, bodies bytea[], keys text[] DEFAULT NULL::text[], headers jsonb[] DEFAULT NULL::jsonb[], dedup_keys text[] DEFAULT NULL::text[], priority integer DEFAULT NULL::integer, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb) returns bigint[]',
'enqueue_unique(queue text, payload jsonb, key text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, priority integer DEFAULT NULL::integer, delay interval DEFAULT NULL::interval, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, ttl interval DEFAULT NULL::interval, dedup_key text DEFAULT NULL::text, options jsonb DEFAULT NULL::jsonb, OUT id bigint, OUT duplicate boolean) returns record',
'extend(receipt uuid, lease interval DEFAULT NULL::interval) returns timestamp with time zone',
'extend_batch(receipts uuid[], lease interval DEFAULT NULL::interval) returns TABLE(receipt uuid, status text)',
'get_key_state(receipt uuid) returns jsonb',
'health(OUT "check" text, OUT status text, OUT value text, OUT detail text, OUT hint text) returns SETOF record',
'limit(queue text, scope text, name text DEFAULT NULL::text, in_flight integer DEFAULT NULL::integer, rate double precision DEFAULT NULL::double precision, burst double precision DEFAULT NULL::double precision, weight double precision DEFAULT NULL::double precision) returns void',
'nack(receipt uuid, error text DEFAULT NULL::text, delay interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb) returns text',
'nack_batch(receipts uuid[], error text DEFAULT NULL::text, delay interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb) returns TABLE(receipt uuid, status text)',
'once(consumer text, message_key text) returns boolean',
$$pause(queue text, side text DEFAULT 'dequeue'::text, reason text DEFAULT NULL::text) returns void$$,
'pause_relay(relay text) returns void',
'pop(queue text, max_messages integer DEFAULT 1) returns SETOF queue.message',
$$purge(queue text, options jsonb DEFAULT '{}'::jsonb) returns bigint$$,
'reject(receipt uuid, reason text DEFAULT NULL::text) returns void',
'relay_test(relay text, OUT ok boolean, OUT detail text) returns record',
'release(receipt uuid, delay interval DEFAULT NULL::interval) returns void',
'release_batch(receipts uuid[], delay interval DEFAULT NULL::interval) returns TABLE(receipt uuid, status text)',
$$resume(queue text, side text DEFAULT 'dequeue'::text) returns void$$,
'resume_relay(relay text) returns void',
'set_key_state(receipt uuid, state jsonb) returns void',
'try_ack(receipts uuid[]) returns TABLE(receipt uuid, status text)',
'unblock(queue text, key text) returns boolean',
'wait(IN queue text, IN timeout interval, INOUT ready boolean DEFAULT NULL::boolean) procedure'
]::text[], 'functions and their signatures');

SELECT results_eq(
$$SELECT string_agg(attname::text COLLATE "default" || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
  FROM pg_attribute WHERE attrelid = 'queue.message'::regclass$$,
ARRAY['id bigint, receipt uuid, queue text, attempt integer, enqueued_at timestamp with time zone, lease_until timestamp with time zone, expires_at timestamp with time zone, key text, priority smallint, headers jsonb, payload jsonb, body bytea, last_error text'],
'the type queue.message');

SELECT is((SELECT count(*) FROM pg_proc WHERE pronamespace = 'queue'::regnamespace AND proconfig IS NOT NULL), 0::bigint, 'no C function carries a SET clause');
SELECT is((SELECT count(*) FROM pg_proc WHERE pronamespace = 'queue'::regnamespace AND proparallel <> 'u'), 0::bigint, 'all are parallel unsafe');
SELECT is((SELECT count(*) FROM pg_proc WHERE pronamespace = 'queue'::regnamespace AND prosecdef), 0::bigint, 'none is security definer');
SELECT is((SELECT count(*) FROM pg_proc WHERE pronamespace = 'queue'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL), 0::bigint, 'each has a comment');

SELECT queue.create('surface');
SELECT columns_are('queues', 'surface', ARRAY['id', 'state', 'enqueued_at', 'deliver_at', 'delay', 'expires_at', 'ttl', 'key', 'priority', 'headers', 'payload', 'body', 'dedup_key', 'unique_key', 'options', 'failures', 'last_error', 'lease_until', 'lease_owner']);
SELECT columns_are('queue', 'stats', ARRAY['queue', 'ready', 'leased', 'delayed', 'failed', 'dead', 'oldest_ready_age', 'total_enqueued', 'total_dequeued', 'total_acked', 'total_failed', 'total_dead', 'total_expired', 'total_cancelled', 'enqueue_rate', 'dequeue_rate', 'ack_rate', 'wait_ms', 'work_ms', 'exact', 'active_consumer', 'active_until']);
SELECT columns_are('queue', 'leases', ARRAY['queue', 'id', 'state', 'attempt', 'owner', 'pid', 'consumer', 'since', 'until']);
SELECT columns_are('queue', 'segments', ARRAY['queue', 'segment', 'number', 'state', 'size', 'live', 'priorities', 'next_due', 'kept_because', 'kept_by']);
SELECT columns_are('queue', 'limits', ARRAY['queue', 'scope', 'name', 'in_flight', 'rate', 'burst', 'weight', 'leased', 'tokens', 'waiting']);
SELECT columns_are('queue', 'queues', ARRAY['queue', 'view', 'owner', 'options', 'dead_letter', 'paused_dequeue', 'paused_enqueue', 'pause_reason', 'created_at']);
SELECT columns_are('queue', 'relays', ARRAY['relay', 'queue', 'server', 'owner', 'options', 'state', 'pause_reason', 'runner', 'epoch', 'since', 'backlog', 'lag', 'in_flight', 'held', 'rate', 'breaker', 'breaker_until', 'parked_keys', 'delivered', 'failed', 'ambiguous', 'throttled', 'rejected', 'filtered', 'lost', 'last_delivered_at', 'last_error', 'last_error_at', 'created_at']);
SELECT columns_are('queue', 'relay_log', ARRAY['relay', 'queue', 'message', 'event', 'target', 'attempt', 'confirmed_at', 'answer']);
SELECT columns_are('queue', 'options', ARRAY['name', 'type', 'choices', 'default', 'meaning', 'available']);

-- the privilege matrix: what each privilege on the view allows, and nothing else
CREATE ROLE surface_none; CREATE ROLE surface_select; CREATE ROLE surface_insert;
CREATE ROLE surface_update; CREATE ROLE surface_delete; CREATE ROLE surface_monitor;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC;
GRANT SELECT ON queues.surface TO surface_select;
GRANT INSERT ON queues.surface TO surface_insert;
GRANT UPDATE ON queues.surface TO surface_update;
GRANT DELETE ON queues.surface TO surface_delete;
GRANT pg_monitor TO surface_monitor;

-- a destination of relays that everybody may use
SET LOCAL queue.sink_libraries = 'queue_file';
CREATE EXTENSION queue_file;
CREATE SERVER surface_destination FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/surface.jsonl');
GRANT USAGE ON FOREIGN SERVER surface_destination TO PUBLIC;

CREATE FUNCTION outcome(role text, sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    BEGIN
        EXECUTE sql;
        RESET ROLE;
        RETURN 'ok';
    EXCEPTION WHEN OTHERS THEN
        RESET ROLE;
        RETURN SQLSTATE;
    END;
END $$;

SELECT is(outcome('surface_' || r, f), CASE WHEN r = allowed THEN 'ok' ELSE '42501' END, format('%s: %s', r, f))
FROM (VALUES ('none'), ('select'), ('insert'), ('update'), ('delete'), ('monitor')) AS roles(r),
     (VALUES ('SELECT * FROM queues.surface', 'select'),
             ('SELECT queue.enqueue(''surface'', ''1'')', 'insert'),
             ('SELECT queue.enqueue_batch(''surface'', ARRAY[''1'']::jsonb[])', 'insert'),
             ('INSERT INTO queues.surface (payload) VALUES (''1'')', 'insert'),
             ('SELECT queue.dequeue(''surface'')', 'update'),
             ('SELECT queue.pop(''surface'')', 'update'),
             ('SELECT queue.create_relay(''surface'', ''surface'', ''surface_destination'')', 'update'),
             ('SELECT queue.purge(''surface'')', 'delete'),
             ('SELECT queue.cancel(''surface'', 1)', 'delete'),
             ('SELECT queue.alter(''surface'', ''{}'')', 'owner'),
             ('SELECT queue.pause(''surface'')', 'owner'),
             ('SELECT queue.drop(''surface'')', 'owner'),
             ('SELECT queue.create(''another'')', 'owner'),
             ('SELECT queue.adopt()', 'owner'),
             ('SELECT queue.clock_advance(''0 s'')', 'owner')) AS calls(f, allowed);

SET LOCAL ROLE surface_none;
SELECT is((SELECT count(*) FROM queue.stats WHERE queue = 'surface'), 0::bigint, 'no right, no numbers');
SELECT is((SELECT count(*) FROM queue.relays WHERE queue = 'surface'), 0::bigint, 'no right, no relays');
SELECT throws_ok('SELECT queue.pause_relay(''surface'')', '42501', NULL, 'who does not own a relay cannot pause it');
SET LOCAL ROLE surface_monitor;
SELECT is((SELECT count(*) FROM queue.stats WHERE queue = 'surface'), 1::bigint, 'a monitor sees numbers');
SELECT is((SELECT owner::text FROM queue.relays WHERE queue = 'surface'), 'surface_update', 'and relays, which belong to whoever made them');
SET LOCAL ROLE surface_insert;
SELECT is((SELECT count(*) FROM queue.queues WHERE queue LIKE 'surface%'), 1::bigint, 'one sees the queues one has a right on');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
