/* Watching. */

CREATE FUNCTION queue._options(OUT name text, OUT type text, OUT choices text,
    OUT "default" text, OUT meaning text, OUT available boolean)
RETURNS SETOF record LANGUAGE C STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_options_list';
COMMENT ON FUNCTION queue._options() IS 'Rows of queue.options.';

CREATE VIEW queue.options WITH (security_barrier) AS SELECT * FROM queue._options();
COMMENT ON VIEW queue.options IS 'Options of queue.create() and queue.alter(); those not available yet raise an error.';

CREATE FUNCTION queue._may_watch(view regclass) RETURNS boolean LANGUAGE C STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_may_watch';
COMMENT ON FUNCTION queue._may_watch(regclass) IS 'Whether the caller has any right on a queue, or is a member of pg_monitor.';

CREATE FUNCTION queue._stats(OUT queue text, OUT ready bigint, OUT leased bigint,
    OUT delayed bigint, OUT failed bigint, OUT stored bigint, OUT oldest_ready_age interval,
    OUT total_enqueued bigint, OUT total_dequeued bigint, OUT total_acked bigint,
    OUT total_failed bigint, OUT total_dead bigint, OUT total_expired bigint,
    OUT total_cancelled bigint, OUT enqueue_rate float8, OUT dequeue_rate float8,
    OUT ack_rate float8, OUT wait_ms float8, OUT work_ms float8, OUT exact boolean)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_stats';
COMMENT ON FUNCTION queue._stats() IS 'Rows of queue.stats.';

CREATE VIEW queue.queues WITH (security_barrier) AS
SELECT c.relname::text AS queue, q.view, c.relowner::regrole AS owner, q.options,
       d.relname::text AS dead_letter, q.paused_dequeue, q.paused_enqueue, q.pause_reason,
       q.created_at
FROM queue._queue q
JOIN pg_catalog.pg_class c ON c.oid = q.view
LEFT JOIN pg_catalog.pg_class d ON d.oid = q.dead_letter
WHERE queue._may_watch(q.view);
COMMENT ON VIEW queue.queues IS 'The queues on which one has any right.';

CREATE VIEW queue.stats WITH (security_barrier) AS
SELECT s.queue, s.ready, s.leased, s.delayed, s.failed, dead.stored AS dead,
       s.oldest_ready_age, s.total_enqueued, s.total_dequeued, s.total_acked, s.total_failed,
       s.total_dead, s.total_expired, s.total_cancelled, s.enqueue_rate, s.dequeue_rate,
       s.ack_rate, s.wait_ms, s.work_ms, s.exact
FROM (SELECT * FROM queue._stats()) s
JOIN queue.queues q ON q.queue = s.queue
LEFT JOIN (SELECT * FROM queue._stats()) dead ON dead.queue = q.dead_letter;
COMMENT ON VIEW queue.stats IS 'Counters of each queue since the server started; rates are per second over the last minute.';

CREATE FUNCTION queue._leases(OUT queue text, OUT id bigint, OUT state text, OUT attempt int,
    OUT owner regrole, OUT pid int, OUT consumer text, OUT since timestamptz, OUT until timestamptz)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_leases';
COMMENT ON FUNCTION queue._leases() IS 'Rows of queue.leases.';

CREATE VIEW queue.leases WITH (security_barrier) AS SELECT * FROM queue._leases();
COMMENT ON VIEW queue.leases IS 'Who holds what until when; cooling: a failure that is about to be written.';

CREATE FUNCTION queue._segments(OUT queue text, OUT segment regclass, OUT number int,
    OUT state text, OUT size bigint, OUT live bigint, OUT next_due timestamptz, OUT kept_because text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_segments';
COMMENT ON FUNCTION queue._segments() IS 'Rows of queue.segments.';

CREATE VIEW queue.segments WITH (security_barrier) AS SELECT * FROM queue._segments();
COMMENT ON VIEW queue.segments IS 'Tables behind each queue, and why a full one has not been emptied.';

CREATE FUNCTION queue.health(OUT "check" text, OUT status text, OUT value text, OUT detail text, OUT hint text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_health';
COMMENT ON FUNCTION queue.health() IS 'A row a check: ok, warn or fail, and what to do about it.';

CREATE FUNCTION queue.check(OUT queue text, OUT rule text, OUT detail text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_check';
COMMENT ON FUNCTION queue.check() IS 'Rows for what is inconsistent between leases, pages, messages and counters; none when all is well.';

CREATE FUNCTION queue.clock_advance("by" interval, wall_only boolean DEFAULT false)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_clock_advance_sql';
COMMENT ON FUNCTION queue.clock_advance(interval, boolean) IS
'For tests, superusers only: move the clock of all queues of the server.';

CREATE FUNCTION queue._break(queue text, what text)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_break';
COMMENT ON FUNCTION queue._break(text, text) IS
'For tests, superusers only: damage what shared memory knows of a queue (counter, slot_count, slot, chain), to show that queue.check() sees it.';
