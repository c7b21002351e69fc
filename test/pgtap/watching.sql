-- Who sees what: the views of watching show a queue to whoever has a right on it, and to monitors.
CREATE EXTENSION IF NOT EXISTS queue;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE ROLE watch_owner; CREATE ROLE watch_consumer; CREATE ROLE watch_none; CREATE ROLE watch_monitor;
GRANT pg_monitor TO watch_monitor;
GRANT CREATE ON SCHEMA queues TO watch_owner;
SET ROLE watch_owner;
SELECT queue.create('watch_one'), queue.create('watch_two');
GRANT UPDATE ON queues.watch_one TO watch_consumer;
SELECT queue.enqueue_batch('watch_one', '{1,2,3}'), queue.enqueue_batch('watch_two', '{1,2,3}');
CREATE TEMP TABLE watch_held AS SELECT 'one' AS queue, receipt FROM queue.dequeue('watch_one', 2, '1 h')
UNION ALL SELECT 'two', receipt FROM queue.dequeue('watch_two', 2, '1 h');
GRANT SELECT ON watch_held TO PUBLIC;
RESET ROLE;
BEGIN;
SELECT plan(28);
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC;

CREATE FUNCTION pg_temp.seen(role text, relation text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE format('SELECT string_agg(DISTINCT queue, '' '' ORDER BY queue) FROM %s WHERE queue LIKE ''watch%%''', relation) INTO result;
    RESET ROLE;
    RETURN coalesce(result, '');
END $$;
CREATE FUNCTION pg_temp.state_of(role text, call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE call;
    RESET ROLE;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

SELECT is(pg_temp.seen(role, 'queue.' || relation), seen, format('%s sees in queue.%s: %s', role, relation, seen))
FROM (VALUES ('leases', 'watch_one watch_two', 'watch_one'), ('segments', 'watch_one watch_one_dead watch_two watch_two_dead', 'watch_one'),
             ('stats', 'watch_one watch_one_dead watch_two watch_two_dead', 'watch_one'),
             ('queues', 'watch_one watch_one_dead watch_two watch_two_dead', 'watch_one')) AS r(relation, owned, granted),
     LATERAL (VALUES ('watch_owner', owned), ('watch_monitor', owned), ('watch_consumer', granted), ('watch_none', '')) AS s(role, seen);

SELECT is(pg_temp.state_of('watch_monitor', 'SELECT * FROM queues.watch_one'), '42501', 'a monitor sees no payload');
SELECT is(pg_temp.state_of('watch_monitor', 'SELECT * FROM queue.check()'), 'ok', 'a monitor may check');
SELECT is(pg_temp.state_of('watch_owner', 'SELECT * FROM queue.check()'), '42501', 'an owner may not');
SELECT is(pg_temp.state_of('watch_none', 'SELECT * FROM queue.health()'), 'ok', 'health is for everybody');
SELECT is(pg_temp.state_of('watch_none', 'SELECT * FROM queue._leases()'), 'ok', 'the functions behind the views show no more than these');
SELECT is(pg_temp.seen('watch_none', 'queue._leases()'), '', 'that is, nothing');
SELECT is(pg_temp.state_of('watch_none', 'SELECT * FROM queue._queue'), '42501', 'the catalog is not for reading');
SELECT is(pg_temp.state_of('watch_consumer', 'SELECT queue._peek(id) FROM queue._queue'), '42501', 'nor is a queue by its number');

-- one receipt in a batch is not one's own
SET LOCAL ROLE watch_consumer;
SELECT results_eq('SELECT status FROM queue.try_ack(ARRAY(SELECT receipt FROM watch_held ORDER BY queue, receipt LIMIT 3)) ORDER BY status',
    ARRAY['acked', 'acked', 'denied'], 'in a batch only that one is denied');
SELECT throws_ok('SELECT queue.ack_batch(ARRAY(SELECT receipt FROM watch_held WHERE queue = ''two''))', '42501', NULL, 'strictly: the whole batch is');
SELECT results_eq('SELECT DISTINCT status FROM queue.release_batch(ARRAY(SELECT receipt FROM watch_held WHERE queue = ''two''))', ARRAY['denied'], 'release likewise');
SELECT throws_ok('CALL queue.wait(''watch_two'', ''0 s'')', '25001', NULL, 'wait: not in a transaction block');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
SET ROLE watch_consumer;
CALL queue.wait('watch_one', '10 s');
RESET ROLE;
SELECT queue.drop('watch_one', true), queue.drop('watch_two', true);
REVOKE CREATE ON SCHEMA queues FROM watch_owner;
DROP OWNED BY watch_owner, watch_consumer, watch_none, watch_monitor;
DROP ROLE watch_owner, watch_consumer, watch_none, watch_monitor;
