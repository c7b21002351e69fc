/* Queues: create, alter, drop, pause. */

CREATE FUNCTION queue.create(queue text, options jsonb DEFAULT '{}')
RETURNS regclass LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_create';
COMMENT ON FUNCTION queue.create(text, jsonb) IS
'Create a queue and, unless the option dead_letter says otherwise, its dead-letter queue <name>_dead.';

CREATE FUNCTION queue.alter(queue text, options jsonb)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_alter';
COMMENT ON FUNCTION queue.alter(text, jsonb) IS
'Change options of a queue: an absent key stays as it is, null means the default.';

CREATE FUNCTION queue.drop(queue text, force boolean DEFAULT false)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_drop';
COMMENT ON FUNCTION queue.drop(text, boolean) IS
'Drop a queue and the dead-letter queue made with it; refused while messages are left, unless forced.';

CREATE FUNCTION queue.limit(queue text, scope text, name text DEFAULT NULL, in_flight int DEFAULT NULL,
    rate float8 DEFAULT NULL, burst float8 DEFAULT NULL, weight float8 DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_limit_set';
COMMENT ON FUNCTION queue.limit(text, text, text, int, float8, float8, float8) IS
'Limit the leases at a time (in_flight), or the cost a second (rate, with bursts), of a queue, or of each consumer or key, or of one by name; or give a key a weight. Nothing given: the limit is removed.';

CREATE FUNCTION queue.pause(queue text, side text DEFAULT 'dequeue', reason text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_pause';
COMMENT ON FUNCTION queue.pause(text, text, text) IS
'Pause a side of a queue: dequeue, enqueue or both. Leases can still be settled.';

CREATE FUNCTION queue.resume(queue text, side text DEFAULT 'dequeue')
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_resume';
COMMENT ON FUNCTION queue.resume(text, text) IS
'End a pause of a side: dequeue, enqueue or both.';

CREATE FUNCTION queue.purge(queue text, options jsonb DEFAULT '{}')
RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_purge_messages';
COMMENT ON FUNCTION queue.purge(text, jsonb) IS
'Delete messages; options: states (array of ready, delayed, leased, failed; default the first two) and older_than (interval). Returns how many.';

CREATE FUNCTION queue.cancel(queue text, id bigint)
RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_cancel';
COMMENT ON FUNCTION queue.cancel(text, bigint) IS
'Delete a message that nobody holds; false if there is none with this id.';
