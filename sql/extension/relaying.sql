/*
 * Relays. A row of the catalog changes when somebody calls one of these functions,
 * never per message; who runs a relay, and how it goes, is in shared memory.
 */

CREATE SEQUENCE queue.relay_id AS int;
-- Numbers of runners, the lower half of an epoch.
CREATE SEQUENCE queue.relay_epoch AS bigint;

CREATE TABLE queue._relay (
    id                int CONSTRAINT _relay_pkey PRIMARY KEY,
    name              text NOT NULL CONSTRAINT _relay_name_key UNIQUE,
    queue             regclass NOT NULL,
    server            text NOT NULL,
    owner             regrole NOT NULL,
    options           jsonb NOT NULL,
    paused            boolean NOT NULL DEFAULT false,
    pause_reason      text,
    system_identifier bigint NOT NULL,
    database          oid NOT NULL,
    created_at        timestamptz NOT NULL
);

-- Rows that a restore brings, or somebody who may write here, are of another database until they are adopted.
CREATE FUNCTION queue._relay_inserted() RETURNS trigger LANGUAGE C
AS 'MODULE_PATHNAME', 'queue_relay_inserted';
COMMENT ON FUNCTION queue._relay_inserted() IS 'The trigger of queue._relay.';
CREATE TRIGGER restored BEFORE INSERT ON queue._relay FOR EACH ROW EXECUTE FUNCTION queue._relay_inserted();
ALTER TABLE queue._relay ENABLE ALWAYS TRIGGER restored;

-- What was confirmed, by option. The worker empties the tables one after the other: see relaylog.c.
CREATE TABLE queue._relay_log_1 (
    relay        text NOT NULL,
    queue        text NOT NULL,
    message      bigint NOT NULL,
    event        text NOT NULL,
    target       text,
    attempt      int NOT NULL,
    confirmed_at timestamptz NOT NULL,
    answer       text
) WITH (autovacuum_enabled = false);
CREATE TABLE queue._relay_log_2 (LIKE queue._relay_log_1) WITH (autovacuum_enabled = false);
CREATE TABLE queue._relay_log_3 (LIKE queue._relay_log_1) WITH (autovacuum_enabled = false);
-- The turns that are on and before; written by the worker, not dumped.
CREATE TABLE queue._relay_log_turn (
    turn  bigint NOT NULL,
    began timestamptz NOT NULL
);

SELECT pg_catalog.pg_extension_config_dump('queue.relay_id', '');
SELECT pg_catalog.pg_extension_config_dump('queue.relay_epoch', '');
SELECT pg_catalog.pg_extension_config_dump('queue._relay', '');
SELECT pg_catalog.pg_extension_config_dump('queue._relay_log_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._relay_log_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._relay_log_3', '');

CREATE FUNCTION queue.create_relay(relay text, queue text, server text, options jsonb DEFAULT '{}')
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_create_relay';
COMMENT ON FUNCTION queue.create_relay(text, text, text, jsonb) IS
'Have the messages of a queue delivered to a foreign server, from now on, with the rights of the caller.';

CREATE FUNCTION queue.alter_relay(relay text, options jsonb)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_alter_relay';
COMMENT ON FUNCTION queue.alter_relay(text, jsonb) IS
'Change options of a relay: an absent key stays as it is, null means the default.';

CREATE FUNCTION queue.pause_relay(relay text)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_pause_relay';
COMMENT ON FUNCTION queue.pause_relay(text) IS
'Deliver nothing more; what is in flight is waited for. The messages stay in the queue.';

CREATE FUNCTION queue.resume_relay(relay text)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_resume_relay';
COMMENT ON FUNCTION queue.resume_relay(text) IS 'End a pause, also one that a destination has asked for.';

CREATE FUNCTION queue.drop_relay(relay text)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_drop_relay';
COMMENT ON FUNCTION queue.drop_relay(text) IS 'Drop a relay; the messages stay in the queue.';

CREATE FUNCTION queue.adopt()
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_adopt';
COMMENT ON FUNCTION queue.adopt() IS
'Let the relays of a restored or copied database run here: without it they are paused. For the database''s owner.';

CREATE FUNCTION queue.relay_test(relay text, OUT ok boolean, OUT detail text)
RETURNS record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_test';
COMMENT ON FUNCTION queue.relay_test(text) IS
'Try the destination of a relay now, without a message: connection, certificate, credentials.';

/* For runners. They check that the caller has the rights of the relay's owner, and its epoch. */

CREATE FUNCTION queue._relay_begin(relay text, runner text,
    OUT epoch bigint, OUT library text, OUT queue text, OUT settings text[], OUT trusted boolean, OUT version bigint,
    OUT max_in_flight int, OUT timeout bigint, OUT ordered boolean, OUT breaker_failures int, OUT breaker_pause bigint,
    OUT breaker_pause_max bigint, OUT lease bigint, OUT max_bytes bigint)
RETURNS record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_begin';
COMMENT ON FUNCTION queue._relay_begin(text, text) IS
'Become the runner of a relay: its epoch and all it needs to know. Times in ms.';

CREATE FUNCTION queue._relay_take(relay text, epoch bigint, max_messages int,
    OUT receipt uuid, OUT message bigint, OUT attempt int, OUT gate bigint, OUT event text, OUT key text, OUT target text,
    OUT content_type text, OUT headers text[], OUT body bytea, OUT lane text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_take';
COMMENT ON FUNCTION queue._relay_take(text, bigint, int) IS 'Lease messages for a runner, as they are to be sent.';

CREATE FUNCTION queue._relay_settle(relay text, epoch bigint, receipts uuid[], verdicts int[], pauses bigint[],
    details text[], messages bigint[], attempts int[], events text[], targets text[])
RETURNS int LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_settle';
COMMENT ON FUNCTION queue._relay_settle(text, bigint, uuid[], int[], bigint[], text[], bigint[], int[], text[], text[]) IS
'End leases of a runner, as the destination has it; returns how many were lost meanwhile.';

CREATE FUNCTION queue._relay_renew(relay text, epoch bigint, receipts uuid[], version bigint, status bigint[],
    error text, OUT state text, OUT gate bigint)
RETURNS record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_renew';
COMMENT ON FUNCTION queue._relay_renew(text, bigint, uuid[], bigint, bigint[], text) IS
'The runner is alive: extends its leases and says how it goes. The state is run, changed, paused or lost.';

CREATE FUNCTION queue._relay_end(relay text, epoch bigint, reason text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_end';
COMMENT ON FUNCTION queue._relay_end(text, bigint, text) IS
'The runner ends; with a reason the relay is paused for it.';

CREATE FUNCTION queue._relay_status(id int, OUT epoch bigint, OUT runner text, OUT since timestamptz, OUT in_flight int,
    OUT held int, OUT breaker text, OUT breaker_until timestamptz, OUT delivered bigint, OUT failed bigint,
    OUT ambiguous bigint, OUT throttled bigint, OUT rejected bigint, OUT filtered bigint, OUT lost bigint, OUT rate float8,
    OUT last_delivered_at timestamptz, OUT last_error text, OUT last_error_at timestamptz)
RETURNS record LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_status';
COMMENT ON FUNCTION queue._relay_status(int) IS 'What shared memory knows of a relay.';

CREATE FUNCTION queue._relay_is_here(system_identifier bigint, database oid) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_relay_is_here';
COMMENT ON FUNCTION queue._relay_is_here(bigint, oid) IS 'Whether a relay was made, or adopted, in this database.';

CREATE VIEW queue.relays WITH (security_barrier) AS
SELECT r.name AS relay, q.queue, r.server, r.owner, r.options,
       CASE WHEN NOT queue._relay_is_here(r.system_identifier, r.database) THEN 'foreign'
            WHEN r.paused THEN 'paused'
            WHEN s.runner IS NULL THEN 'waiting'
            WHEN s.breaker <> 'closed' THEN 'broken'
            ELSE 'running' END AS state,
       r.pause_reason, s.runner, s.epoch, s.since, t.ready AS backlog, t.oldest_ready_age AS lag, s.in_flight, s.held, s.rate,
       s.breaker, s.breaker_until,
       (SELECT count(DISTINCT b.key) FROM queue._blocked_key b WHERE b.queue = d.id) AS parked_keys,
       s.delivered, s.failed, s.ambiguous, s.throttled, s.rejected, s.filtered, s.lost,
       s.last_delivered_at, s.last_error, s.last_error_at, r.created_at
FROM queue._relay r
JOIN queue._queue d ON d.view = r.queue
JOIN queue.queues q ON q.view = r.queue
LEFT JOIN queue.stats t ON t.queue = q.queue
CROSS JOIN LATERAL queue._relay_status(r.id) s;
COMMENT ON VIEW queue.relays IS 'Relays of the queues on which one has any right: where they deliver to, who runs them, how it goes.';

CREATE VIEW queue.relay_log WITH (security_barrier) AS
SELECT l.relay, l.queue, l.message, l.event, l.target, l.attempt, l.confirmed_at, l.answer
FROM (SELECT * FROM queue._relay_log_1 UNION ALL SELECT * FROM queue._relay_log_2
      UNION ALL SELECT * FROM queue._relay_log_3) l
JOIN queue.queues q ON q.queue = l.queue;
COMMENT ON VIEW queue.relay_log IS 'What destinations have confirmed, of relays with the option log.';
