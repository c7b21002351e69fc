-- What the fuzzer runs on: roles, queues, wrappers that run a statement in an
-- odd place, and a schema of names that stand before those of pg_catalog.
-- Once a database, by a superuser; roles are made by run.

CREATE EXTENSION queue;

-- Queues of an owner who has granted a privilege to each of the others.
GRANT CREATE ON SCHEMA queues TO fuzz_owner, fuzz_guardian, fuzz_all;
SET ROLE fuzz_owner;
SELECT queue.create('plain'),
       queue.create('small', '{"segment_size": "64kB", "max_attempts": 1, "backoff": "none"}'),
       queue.create('short', '{"message_ttl": "1 s", "on_expiry": "drop", "max_attempts": 2}'),
       queue.create('endless', '{"max_attempts": 0, "backoff": "none", "segment_size": "64kB", "dead_letter": ""}'),
       queue.create(E'od"d\nnäme''s'),
       queue.create(repeat('é', 24));
DO $$
DECLARE
    v regclass;
BEGIN
    FOR v IN SELECT view FROM queue.queues LOOP
        EXECUTE format('GRANT ALL ON %s TO fuzz_all', v);
        EXECUTE format('GRANT INSERT ON %s TO fuzz_producer', v);
        EXECUTE format('GRANT UPDATE ON %s TO fuzz_consumer', v);
        EXECUTE format('GRANT SELECT ON %s TO fuzz_peeker', v);
    END LOOP;
END $$;

-- Queues of somebody else. Nobody may touch the first and the last.
SET ROLE fuzz_guardian;
SELECT queue.create('canary', '{"segment_size": "64kB"}'), queue.create('canary_in'),
       queue.create('canary_peek'), queue.create('canary_leased', '{"lease_max": "365 days"}');
GRANT INSERT ON queues.canary_in TO PUBLIC;
GRANT SELECT ON queues.canary_peek TO PUBLIC;
RESET ROLE;

CREATE SCHEMA fuzz;
GRANT USAGE ON SCHEMA fuzz TO PUBLIC;

CREATE FUNCTION fuzz.noise(bytes int) RETURNS text LANGUAGE sql AS
$$ SELECT substr(string_agg(md5(n::text), ''), 1, bytes) FROM generate_series(0, bytes / 32) n $$;

CREATE FUNCTION fuzz.run(sql text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN EXECUTE sql; RETURN 'ran'; END $$;
CREATE FUNCTION fuzz.run_stable(sql text) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN EXECUTE sql; RETURN 'ran'; END $$;
CREATE FUNCTION fuzz.run_immutable(sql text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN EXECUTE sql; RETURN 'ran'; END $$;
CREATE FUNCTION fuzz.run_parallel(sql text, n int) RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS
$$ BEGIN EXECUTE sql; RETURN n; END $$;
-- As a role that has all rights on the owner's queues, and none on a canary.
CREATE FUNCTION fuzz.run_definer(sql text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN EXECUTE sql; RETURN 'ran'; END $$;
ALTER FUNCTION fuzz.run_definer(text) OWNER TO fuzz_all;

-- Below savepoints: what failed is caught; what worked is undone.
CREATE FUNCTION fuzz.catch(sql text, times int) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1 .. times LOOP
        BEGIN
            EXECUTE sql;
            RETURN NEXT 'ran';
        EXCEPTION WHEN OTHERS THEN
            RETURN NEXT format('caught %s %s', SQLSTATE, SQLERRM);
        END;
    END LOOP;
END $$;
CREATE FUNCTION fuzz.undo(sql text, after text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE sql;
        RAISE division_by_zero;
    EXCEPTION WHEN OTHERS THEN
        EXECUTE after;
        RETURN format('caught %s %s', SQLSTATE, SQLERRM);
    END;
END $$;
CREATE FUNCTION fuzz.first(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    FOR r IN EXECUTE sql LOOP
        RETURN r::text;
    END LOOP;
    RETURN NULL;
END $$;
CREATE PROCEDURE fuzz.commits(sql text, after text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE sql;
    COMMIT;
    EXECUTE after;
    ROLLBACK;
    EXECUTE sql;
END $$;

-- Statements that a trigger runs: before the row, and when all commits.
CREATE TABLE fuzz.task (sql text, late boolean);
GRANT INSERT, SELECT ON fuzz.task TO PUBLIC;
CREATE FUNCTION fuzz.task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.late = (TG_WHEN = 'AFTER') THEN
        EXECUTE new.sql;
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER now BEFORE INSERT ON fuzz.task FOR EACH ROW EXECUTE FUNCTION fuzz.task();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON fuzz.task DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fuzz.task();

CREATE TABLE fuzz.many AS SELECT n, md5(n::text) AS t FROM generate_series(1, 20000) n;
ALTER TABLE fuzz.many SET (parallel_workers = 2);
ANALYZE fuzz.many;
GRANT SELECT ON fuzz.many TO PUBLIC;
CREATE TABLE fuzz.work (n bigint, t text);
GRANT ALL ON fuzz.work TO PUBLIC;
CREATE TABLE fuzz.own (n bigint, t text);

-- Views of others upon the views of queues.
CREATE VIEW fuzz.over_plain AS SELECT * FROM queues.plain;
CREATE VIEW fuzz.over_canary AS SELECT * FROM queues.canary;
ALTER VIEW fuzz.over_plain OWNER TO fuzz_all;
ALTER VIEW fuzz.over_canary OWNER TO fuzz_nobody;
GRANT ALL ON fuzz.over_plain, fuzz.over_canary TO PUBLIC;

-- Whoever runs one of these on another's behalf is told of in the log.
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE FUNCTION hostile.tell() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE WARNING 'hostile function ran as % for %', current_user, session_user;
END $$;
DO $$
DECLARE
    pair text[];
BEGIN
    FOREACH pair SLICE 1 IN ARRAY ARRAY[['int4', '='], ['oid', '='], ['name', '='], ['text', '='], ['int8', '='],
            ['oid', '<>'], ['int4', '<>'], ['int4', '>'], ['int8', '>'], ['text', '~~']]
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s, %s) RETURNS boolean LANGUAGE plpgsql AS '
                       '''BEGIN PERFORM hostile.tell(); RETURN true; END''',
                       'op' || pg_catalog.md5(pair[1] || pair[2]), pair[1], pair[1]);
        EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile.%I)',
                       pair[2], pair[1], pair[1], 'op' || pg_catalog.md5(pair[1] || pair[2]));
    END LOOP;
END $$;
CREATE FUNCTION hostile.age(xid) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM hostile.tell(); RETURN 1; END';
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM hostile.tell(); RETURN NULL; END';
CREATE FUNCTION hostile.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS
    'BEGIN PERFORM hostile.tell(); RETURN NULL; END';
CREATE FUNCTION hostile.pg_backend_pid() RETURNS int LANGUAGE plpgsql AS
    'BEGIN PERFORM hostile.tell(); RETURN NULL; END';
CREATE FUNCTION hostile.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS
    'BEGIN PERFORM hostile.tell(); END';
CREATE FUNCTION hostile._peek(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM hostile.tell(); RETURN NULL; END';
CREATE VIEW hostile.pg_locks AS SELECT hostile.pg_backend_pid() AS pid;
CREATE VIEW hostile.pg_class AS SELECT hostile.pg_backend_pid() AS oid;
CREATE VIEW hostile.pg_stat_activity AS SELECT hostile.pg_backend_pid() AS pid;
CREATE VIEW hostile._queue AS SELECT hostile.pg_backend_pid() AS id;
CREATE VIEW hostile._segment AS SELECT hostile.pg_backend_pid() AS relation;
GRANT SELECT ON ALL TABLES IN SCHEMA hostile TO PUBLIC;
CREATE DOMAIN hostile.text AS int;
CREATE DOMAIN hostile.jsonb AS int;
CREATE DOMAIN hostile.regclass AS int;
CREATE DOMAIN hostile.uuid AS int;
