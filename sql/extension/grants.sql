/*
 * The queue's ACL is the guard, checked in C; functions and schemas are open.
 * Making a queue needs CREATE on schema queues, which the owner of the
 * database gets here: a trusted install leaves all objects with the bootstrap
 * superuser.
 */

GRANT USAGE ON SCHEMA queue, queues TO PUBLIC;
GRANT SELECT ON queue.options, queue.queues, queue.stats, queue.leases, queue.segments, queue.limits, queue.relays, queue.relay_log TO PUBLIC;
-- for queue.health()
GRANT SELECT ON queue._horizon TO PUBLIC;

GRANT CREATE ON SCHEMA queues TO @extowner@ WITH GRANT OPTION;
-- for pg_dump and pg_restore
GRANT SELECT, INSERT ON queue._queue, queue._segment, queue._blocked_key, queue._limit, queue._key_state, queue._relay TO @extowner@;
GRANT SELECT, INSERT ON queue._relay_log_1, queue._relay_log_2, queue._relay_log_3 TO @extowner@;
GRANT SELECT, INSERT ON
    queue._seen_5min_1, queue._seen_5min_2, queue._seen_5min_3,
    queue._seen_1h_1, queue._seen_1h_2, queue._seen_1h_3,
    queue._seen_1d_1, queue._seen_1d_2, queue._seen_1d_3,
    queue._seen_1week_1, queue._seen_1week_2, queue._seen_1week_3,
    queue._seen_1month_1, queue._seen_1month_2, queue._seen_1month_3,
    queue._seen_1year_1, queue._seen_1year_2, queue._seen_1year_3,
    queue._seen_ever, queue._unique_key TO @extowner@;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE queue.message_id, queue.queue_id, queue.relay_id, queue.relay_epoch TO @extowner@;
