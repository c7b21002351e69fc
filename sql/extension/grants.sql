/*
 * The queue's ACL is the guard, checked in C; functions and schemas are open.
 * Making a queue needs CREATE on schema queues, which the owner of the
 * database gets here: a trusted install leaves all objects with the bootstrap
 * superuser.
 */

GRANT USAGE ON SCHEMA queue, queues TO PUBLIC;
GRANT SELECT ON queue.options, queue.queues, queue.stats, queue.leases, queue.segments, queue.limits TO PUBLIC;
-- for queue.health()
GRANT SELECT ON queue._horizon TO PUBLIC;

GRANT CREATE ON SCHEMA queues TO @extowner@ WITH GRANT OPTION;
-- for pg_dump and pg_restore
GRANT SELECT, INSERT ON queue._queue, queue._segment, queue._blocked_key, queue._limit, queue._key_state TO @extowner@;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE queue.message_id, queue.queue_id TO @extowner@;
