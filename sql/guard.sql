-- Hands off what belongs to the extension; privileges; nothing leaks.
CREATE EXTENSION IF NOT EXISTS queue;
SELECT queue.create('g');
SELECT relation::text AS segment FROM queue._segment s JOIN queue._queue q ON q.id = s.queue WHERE q.view = 'queues.g'::regclass \gset
\set VERBOSITY sqlstate
DELETE FROM :segment;
UPDATE :segment SET key = 'x';
DROP TABLE :segment;
ALTER TABLE :segment ADD COLUMN x int;
CREATE INDEX ON :segment (id);
SELECT queue.enqueue('g', '1') IS NOT NULL AS sent;
TRUNCATE :segment;
VACUUM FULL :segment;
CLUSTER :segment;
ALTER TABLE :segment OWNER TO CURRENT_USER;
WITH x AS (DELETE FROM :segment RETURNING id) SELECT * FROM x;
CREATE RULE nothing AS ON INSERT TO queues.g DO INSTEAD NOTHING;
CREATE TRIGGER nothing INSTEAD OF INSERT ON queues.g FOR EACH ROW EXECUTE FUNCTION queue._view_update();
DROP TRIGGER queue_insert ON queues.g;
ALTER TRIGGER queue_insert ON queues.g RENAME TO other;
CREATE TABLE heir () INHERITS (:segment);
SET session_replication_role = replica;
WITH x AS (INSERT INTO queues.g (payload) VALUES ('1') RETURNING id) SELECT * FROM x;
RESET session_replication_role;
DROP VIEW queues.g;
ALTER VIEW queues.g RENAME TO h;
DROP EXTENSION queue;
\set VERBOSITY default
VACUUM :segment;
SELECT payload FROM queue.pop('g');

CREATE ROLE queue_reader;
CREATE ROLE queue_producer;
CREATE ROLE queue_consumer;
GRANT SELECT ON queues.g TO queue_reader;
GRANT INSERT ON queues.g TO queue_producer;
GRANT UPDATE ON queues.g TO queue_consumer;
SET ROLE queue_producer;
SELECT queue.enqueue('g', '2') IS NOT NULL AS sent;
INSERT INTO queues.g (payload) VALUES ('3');
SELECT queue.dequeue('g');
SELECT * FROM queues.g;
SELECT queue.drop('g');
SELECT queue.alter('g', '{}');
SELECT queue.create('mine');
SELECT queue.purge('g');
SELECT queue, ready FROM queue.stats;
SELECT queue.clock_advance('1 s');
SELECT queue._break('g', 'counter');
SET ROLE queue_consumer;
SELECT receipt AS r, payload FROM queue.dequeue('g') \gset
SELECT queue.enqueue('g', '4');
SET ROLE queue_reader;
SELECT payload, state FROM queues.g ORDER BY id;
\set VERBOSITY sqlstate
SELECT queue.ack(:'r');
\set VERBOSITY default
SELECT status FROM queue.try_ack(ARRAY[:'r']::uuid[]);
SELECT queue, state FROM queue.leases;
RESET ROLE;
SELECT queue.ack(:'r');
GRANT CREATE ON SCHEMA queues TO queue_producer;
SET ROLE queue_producer;
SELECT queue.create('mine');
SELECT queue.drop('mine');
RESET ROLE;

-- Rows put into the catalog by hand make nobody's table a segment, and no view a queue.
\set ON_ERROR_ROLLBACK on
BEGIN;
CREATE TABLE bystander (LIKE :segment);
INSERT INTO bystander SELECT id, now(), '-infinity', NULL, NULL, NULL, 0, 0, 0, 0, NULL, NULL, NULL, '1', NULL, NULL FROM generate_series(1, 3) id;
SELECT queue.create('h', '{"dead_letter": ""}');
SELECT id AS h, format('segment_of_queue_%s_number_0000000008__________________', lpad(id::text, 10, '0')) AS forged
FROM queue._queue WHERE view = 'queues.h'::regclass \gset
CREATE TABLE queues.:forged (id text);
INSERT INTO queues.:forged VALUES ('not a message');
CREATE VIEW queues.bystander AS SELECT 1 AS id;
CREATE TRIGGER send INSTEAD OF INSERT ON queues.bystander FOR EACH ROW EXECUTE FUNCTION queue._view_insert();
CREATE TRIGGER cancel INSTEAD OF DELETE ON queues.bystander FOR EACH ROW EXECUTE FUNCTION queue._view_delete();
INSERT INTO queue._segment SELECT oid, :h, CASE relname WHEN 'bystander' THEN 7 ELSE 8 END
FROM pg_class WHERE oid = 'bystander'::regclass OR relname = :'forged';
INSERT INTO queue._queue (id, view, options, dead_letter, paused_dequeue, paused_enqueue, created_at)
VALUES (-1, 'bystander', '{}', NULL, false, false, now()), (-2, 'queues.bystander', '{}', NULL, false, false, now());
SELECT payload FROM queue.dequeue('h', 10);
SELECT queue.purge('h');
SELECT count(*) FROM queues.h;
SELECT queue.enqueue('bystander', '1');
INSERT INTO queues.bystander VALUES (1);
DELETE FROM queues.bystander;
SELECT queue.drop('h', true);
SELECT count(*) AS untouched FROM bystander;
ROLLBACK;
SELECT queue.drop('g', true);

-- every rule of queue.check() can fail
SET client_min_messages = error;
SELECT queue.create('b');
SELECT count(queue.enqueue('b', to_jsonb(n))) FROM generate_series(1, 3) n;
SELECT queue._break('b', 'counter');
SELECT queue, rule, detail FROM queue.check();
SELECT queue.drop('b', true);
SELECT * FROM queue.check();
SELECT "check", status IN ('ok', 'warn') AS fine FROM queue.health() ORDER BY 1;

-- names in the search_path of who asks for health are not called
SET client_min_messages = error;
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.join_int(text, int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE FUNCTION hostile.join_text(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE FUNCTION hostile.join_name(text, name) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE FUNCTION hostile.differ(int, int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = int, FUNCTION = hostile.join_int);
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.join_text);
CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = name, FUNCTION = hostile.join_name);
CREATE OPERATOR hostile.<> (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.differ);
CREATE FUNCTION hostile.same(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE FUNCTION hostile.same(name, name) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.same);
CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.same);
CREATE DOMAIN hostile.text AS int;
BEGIN;
SELECT txid_current() IS NOT NULL AS has_xid;
PREPARE TRANSACTION 'holder';
CREATE PUBLICATION queue_all FOR ALL TABLES;
SET search_path = hostile, pg_catalog;
SELECT count(*) > 0 AS shown FROM queue.health();
RESET search_path;
DROP PUBLICATION queue_all;
ROLLBACK PREPARED 'holder';
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;

-- publications that carry segments or the catalog
SET client_min_messages = error;
CREATE SCHEMA app;
CREATE TABLE app.orders (id int PRIMARY KEY);
CREATE PUBLICATION queue_app FOR TABLES IN SCHEMA app;
SELECT status, value, detail, hint FROM queue.health() WHERE "check" = 'publications';
CREATE PUBLICATION queue_all FOR ALL TABLES;
SELECT status, value, detail, hint FROM queue.health() WHERE "check" = 'publications';
DROP PUBLICATION queue_all;
CREATE PUBLICATION queue_schema FOR TABLES IN SCHEMA queues;
CREATE PUBLICATION queue_table FOR TABLE queue._queue;
SELECT status, value, detail, hint FROM queue.health() WHERE "check" = 'publications';
DROP PUBLICATION queue_app, queue_schema, queue_table;
DROP SCHEMA app CASCADE;

-- a cheap function in WHERE sees no more rows than its caller
SELECT queue.create('secret');
CREATE ROLE queue_nobody;
GRANT CREATE ON SCHEMA public TO queue_nobody;
SET ROLE queue_nobody;
CREATE FUNCTION public.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0001
    AS $$BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END$$;
SET client_min_messages = notice;
SELECT queue, options FROM queue.queues WHERE leak(queue) AND leak(options);
SELECT queue FROM queue.stats WHERE leak(queue);
SELECT queue FROM queue.segments WHERE leak(queue);
SELECT queue FROM queue.leases WHERE leak(queue);
SET client_min_messages = warning;
DROP FUNCTION public.leak(anyelement);
RESET ROLE;
DROP OWNED BY queue_nobody;
DROP ROLE queue_nobody;
SELECT queue.drop('secret');
SELECT relname FROM pg_class
WHERE relkind = 'v' AND relnamespace = 'queue'::regnamespace
  AND NOT COALESCE(reloptions, '{}') && '{security_barrier=true,security_barrier=on,security_barrier}'
ORDER BY 1;
REVOKE CREATE ON SCHEMA queues FROM queue_producer;
DROP ROLE queue_reader, queue_producer, queue_consumer;

-- a view of somebody else over a queue: INSERT and DELETE ask for its owner's privileges, a peek for those of whoever looks
CREATE ROLE guard_owner;
CREATE ROLE guard_wrapper;
CREATE ROLE guard_user;
GRANT CREATE ON SCHEMA queues, public TO guard_owner, guard_wrapper;
SET ROLE guard_owner;
SELECT queue.create('guarded');
GRANT INSERT, SELECT ON queues.guarded TO guard_wrapper;
SET ROLE guard_wrapper;
CREATE VIEW public.wrapper AS SELECT id, payload FROM queues.guarded;
GRANT SELECT, INSERT, DELETE ON public.wrapper TO guard_user;
SET ROLE guard_user;
INSERT INTO queues.guarded (payload) VALUES ('1');
INSERT INTO public.wrapper (payload) VALUES ('2');
SELECT payload FROM public.wrapper;
SET ROLE guard_wrapper;
SELECT payload FROM public.wrapper;
SET ROLE guard_owner;
GRANT SELECT ON queues.guarded TO guard_user;
SET ROLE guard_user;
SELECT payload FROM public.wrapper;
DELETE FROM public.wrapper;
SET ROLE guard_owner;
GRANT DELETE ON queues.guarded TO guard_wrapper;
SET ROLE guard_user;
DELETE FROM public.wrapper;
SELECT count(*) FROM public.wrapper;

-- another owner: role tools move a queue as they move anything
RESET ROLE;
SELECT queue.enqueue('guarded', '3') > 0 AS sent;
REASSIGN OWNED BY guard_owner TO guard_wrapper;
SELECT queue, owner FROM queue.queues WHERE queue LIKE 'guarded%' ORDER BY 1;
SET ROLE guard_owner;
SELECT queue.pause('guarded');
SET ROLE guard_wrapper;
SELECT queue.alter('guarded', '{"max_attempts": 1, "backoff": "none"}');
SELECT queue.nack(receipt) FROM queue.dequeue('guarded');
SELECT payload FROM queues.guarded_dead;
SELECT queue.drop('guarded', true);
DROP VIEW public.wrapper;
SELECT queue.drop('guarded', true);
RESET ROLE;
DROP OWNED BY guard_owner, guard_wrapper, guard_user;
DROP ROLE guard_owner, guard_wrapper, guard_user;
