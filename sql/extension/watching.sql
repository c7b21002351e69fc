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
    OUT ack_rate float8, OUT wait_ms float8, OUT work_ms float8, OUT exact boolean,
    OUT active_consumer text, OUT active_until timestamptz)
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
       s.ack_rate, s.wait_ms, s.work_ms, s.exact, s.active_consumer, s.active_until
FROM (SELECT * FROM queue._stats()) s
JOIN queue.queues q ON q.queue = s.queue
LEFT JOIN (SELECT * FROM queue._stats()) dead ON dead.queue = q.dead_letter;
COMMENT ON VIEW queue.stats IS 'Counters of each queue since the server started; rates are per second over the last minute.';

CREATE FUNCTION queue._leases(OUT queue text, OUT id bigint, OUT state text, OUT attempt int,
    OUT owner regrole, OUT pid int, OUT consumer text, OUT since timestamptz, OUT until timestamptz,
    OUT segment regclass)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_leases';
COMMENT ON FUNCTION queue._leases() IS 'Rows of queue.leases, with the segment of each.';

CREATE VIEW queue.leases WITH (security_barrier) AS
SELECT queue, id, state, attempt, owner, pid, consumer, since, until FROM queue._leases();
COMMENT ON VIEW queue.leases IS 'Who holds what until when; cooling: a failure that is about to be written.';

CREATE FUNCTION queue._meter(view regclass, scope text, name text, OUT leased bigint, OUT tokens float8, OUT waiting bigint)
RETURNS record LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_meter_show';
COMMENT ON FUNCTION queue._meter(regclass, text, text) IS 'What is in use of a limit of a queue.';

CREATE VIEW queue.limits WITH (security_barrier) AS
SELECT q.queue, l.scope, CASE WHEN l.name <> '' THEN substr(l.name, 2) END AS name, l.in_flight, l.rate, l.burst, l.weight,
       m.leased, m.tokens, m.waiting
FROM queue._limit l
JOIN queue._queue d ON d.id = l.queue
JOIN queue.queues q ON q.view = d.view
CROSS JOIN LATERAL queue._meter(q.view, l.scope, l.name) m;
COMMENT ON VIEW queue.limits IS 'Limits of queues, what is in use of those that count one thing, and how many wait for room.';

CREATE FUNCTION queue._worker_pid() RETURNS int LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_worker_pid';
COMMENT ON FUNCTION queue._worker_pid() IS 'The worker of this database; null if there is none.';

/*
 * The next two views read the server's own, whose functions show each caller
 * what he may see of others: without rights on a session its state and the
 * start of its transaction are null.
 */

-- Who has a lock on a segment or its toast table. The worker's own do not last.
CREATE VIEW queue._segment_locks WITH (security_barrier) AS
SELECT s.segment, l.pid, p.gid,
       CASE WHEN p.gid IS NULL THEN format('pid %s', l.pid) || coalesce(' (' || a.state || ')', '')
            ELSE format('prepared transaction "%s"', p.gid) END AS holder,
       bool_or(l.mode NOT IN ('AccessShareLock', 'RowShareLock')) AS writes
FROM pg_catalog.pg_locks l
JOIN (SELECT relation AS segment, relation::oid AS locked FROM queue._segment
      UNION ALL
      SELECT g.relation, c.reltoastrelid FROM queue._segment g
      JOIN pg_catalog.pg_class c ON c.oid = g.relation WHERE c.reltoastrelid <> 0) s ON s.locked = l.relation
JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = current_database()
-- a prepared transaction keeps the virtual id of the session it came from, until a restart
LEFT JOIN (SELECT t.virtualtransaction, x.gid FROM pg_catalog.pg_prepared_xacts x
           JOIN pg_catalog.pg_locks t ON t.locktype = 'transactionid' AND t.transactionid = x.transaction AND t.pid IS NULL
          ) p ON l.pid IS NULL AND p.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.mode <> 'SIReadLock'
  AND (l.pid IS NOT NULL OR p.gid IS NOT NULL) AND l.pid IS DISTINCT FROM queue._worker_pid()
GROUP BY s.segment, l.pid, p.gid, a.state;
COMMENT ON VIEW queue._segment_locks IS 'Locks on segments, a row for each holder.';

/*
 * Who keeps vacuum from removing what died since; the one to blame is the
 * first by age descending, rank, since. A transaction with an id holds back
 * the snapshots of all databases, which then look as old as it is: rank.
 */
CREATE VIEW queue._horizon WITH (security_barrier) AS
WITH locked AS (SELECT pid, gid, count(DISTINCT segment) AS segments FROM queue._segment_locks GROUP BY pid, gid),
holders AS (
    -- sessions, and standbys that send their feedback without a slot
    SELECT CASE WHEN r.pid IS NOT NULL AND a.datid IS NULL
                THEN format('standby "%s" with hot_standby_feedback, through pid %s', a.application_name, a.pid)
                ELSE format('%s %s', CASE WHEN a.pid = pg_backend_pid() THEN 'this session, pid' ELSE 'pid' END, a.pid)
                     || coalesce(' (' || a.state || ')', '') || coalesce(' of role "' || a.usename || '"', '')
                     || coalesce(', in a transaction since ' || date_trunc('second', a.xact_start), '')
           END || CASE WHEN a.datname <> current_database() THEN format(', in database "%s"', a.datname) ELSE '' END AS holder,
           CASE WHEN a.datname <> current_database() THEN age(a.backend_xid)
                ELSE greatest(age(a.backend_xid), age(a.backend_xmin)) END AS age,
           a.xact_start AS since, false AS catalogs,
           CASE WHEN a.pid = pg_backend_pid() THEN 2
                WHEN age(a.backend_xid) >= coalesce(age(a.backend_xmin), 0) THEN 0 ELSE 1 END AS rank,
           a.pid, NULL AS gid,
           CASE WHEN r.pid IS NOT NULL AND a.datid IS NULL
                THEN 'End the long query on the standby, or set hot_standby_feedback = off there, which may cancel its queries.'
                ELSE format('End its transaction, or the session: SELECT pg_terminate_backend(%s). '
                            'idle_in_transaction_session_timeout ends one that does nothing.', a.pid) END AS remedy
    FROM pg_catalog.pg_stat_activity a
    LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = a.pid
    WHERE a.pid NOT IN (SELECT pid FROM pg_catalog.pg_stat_progress_vacuum)
    UNION ALL
    SELECT format('prepared transaction "%s" of role "%s", prepared at %s', p.gid, p.owner, date_trunc('second', p.prepared))
           || CASE WHEN p.database <> current_database() THEN format(', in database "%s"', p.database) ELSE '' END,
           age(p.transaction), p.prepared, false, 0, NULL, p.gid,
           format('In database "%s": COMMIT PREPARED %L or ROLLBACK PREPARED %L.', p.database, p.gid, p.gid)
    FROM pg_catalog.pg_prepared_xacts p
    UNION ALL
    SELECT format('%s replication slot "%s" (%s)', s.slot_type, s.slot_name, h.horizon)
           || CASE WHEN s.active THEN format(', in use by pid %s', s.active_pid) || coalesce(', "' || r.application_name || '"', '')
                   ELSE ', which nobody uses' END,
           age(h.xid), NULL, h.horizon = 'catalog_xmin', 1, NULL, NULL,
           CASE WHEN NOT s.active THEN format('If nobody will come back for it: SELECT pg_drop_replication_slot(%L).', s.slot_name)
                WHEN s.slot_type = 'logical' THEN 'Have its consumer receive and confirm what it is behind.'
                ELSE 'End the long query on the standby, or set hot_standby_feedback = off there, which may cancel its queries.' END
    FROM pg_catalog.pg_replication_slots s
    LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid,
    LATERAL (VALUES ('xmin', s.xmin), ('catalog_xmin', s.catalog_xmin)) h(horizon, xid)
    WHERE s.wal_status IS DISTINCT FROM 'lost'
)
SELECT h.holder || coalesce('; it has locks on segments (' || l.segments || '), which stay until it ends', '') AS holder,
       h.age, h.since, h.catalogs, h.rank, h.remedy
FROM holders h
LEFT JOIN locked l ON l.pid = h.pid OR l.gid = h.gid
WHERE h.age IS NOT NULL AND (h.rank < 2 OR h.age > 0);
COMMENT ON VIEW queue._horizon IS 'Who holds back the horizon of vacuum, and what to do about it.';

CREATE FUNCTION queue._segments(OUT queue text, OUT segment regclass, OUT number int,
    OUT state text, OUT size bigint, OUT live bigint, OUT priorities int[], OUT next_due timestamptz, OUT kept text)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_segments';
COMMENT ON FUNCTION queue._segments() IS 'Rows of queue.segments, with what the worker said when it last looked.';

CREATE VIEW queue.segments WITH (security_barrier) AS
SELECT s.queue, s.segment, s.number, s.state, s.size, s.live, s.priorities, s.next_due,
       CASE s.kept
           WHEN 'delay' THEN 'reclaim_delay has not passed since the last delete'
           WHEN 'locked' THEN 'somebody holds a lock on it'
           WHEN 'in progress' THEN 'transactions on it are open'
           WHEN 'messages' THEN CASE
               -- the last one went after the worker looked
               WHEN s.live <= 0 AND l.writers IS NULL THEN NULL
               WHEN s.live <= coalesce(h.settling, 0) THEN 'transactions on it are open'
               WHEN s.live <= h.leased + h.settling THEN 'its messages are leased'
               ELSE 'messages are left in it' END
       END AS kept_because,
       CASE
           WHEN s.kept IN ('locked', 'in progress') THEN l.holders
           WHEN s.kept = 'delay' THEN
               (SELECT holder FROM queue._horizon WHERE NOT catalogs ORDER BY age DESC, rank, since LIMIT 1)
           WHEN s.kept = 'messages' THEN nullif(concat_ws(', ', h.lessees, l.writers), '')
       END AS kept_by
FROM queue._segments() s
LEFT JOIN (SELECT segment, string_agg(holder, ', ' ORDER BY holder) AS holders,
                  string_agg(holder, ', ' ORDER BY holder) FILTER (WHERE writes) AS writers
           FROM queue._segment_locks GROUP BY segment) l ON l.segment = s.segment
LEFT JOIN (SELECT segment, count(*) FILTER (WHERE state <> 'settling') AS leased,
                  count(*) FILTER (WHERE state = 'settling') AS settling,
                  'leases of pid ' || string_agg(DISTINCT pid::text, ', pid ') FILTER (WHERE state = 'leased') AS lessees
           FROM queue._leases() GROUP BY segment) h ON h.segment = s.segment;
COMMENT ON VIEW queue.segments IS 'Tables behind each queue, why a full one has not been emptied, and who is in the way.';

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
