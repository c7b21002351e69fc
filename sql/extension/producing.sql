/* Producing. */

CREATE FUNCTION queue.enqueue(queue text, payload jsonb, key text DEFAULT NULL,
    headers jsonb DEFAULT NULL, priority int DEFAULT NULL, delay interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    dedup_key text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_enqueue_json';
COMMENT ON FUNCTION queue.enqueue(text, jsonb, text, jsonb, int, interval, timestamptz, interval, text, jsonb) IS
'Put a message into a queue when the transaction commits; returns its id.';

CREATE FUNCTION queue.enqueue_bytes(queue text, body bytea, key text DEFAULT NULL,
    headers jsonb DEFAULT NULL, priority int DEFAULT NULL, delay interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    dedup_key text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_enqueue_bytes';
COMMENT ON FUNCTION queue.enqueue_bytes(text, bytea, text, jsonb, int, interval, timestamptz, interval, text, jsonb) IS
'Put a message of bytes into a queue when the transaction commits; returns its id.';

CREATE FUNCTION queue.enqueue_unique(queue text, payload jsonb, key text DEFAULT NULL,
    headers jsonb DEFAULT NULL, priority int DEFAULT NULL, delay interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    dedup_key text DEFAULT NULL, options jsonb DEFAULT NULL,
    OUT id bigint, OUT duplicate boolean)
RETURNS record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_enqueue_unique';
COMMENT ON FUNCTION queue.enqueue_unique(text, jsonb, text, jsonb, int, interval, timestamptz, interval, text, jsonb) IS
'Like queue.enqueue(), and tells whether the message was a duplicate.';

CREATE FUNCTION queue.enqueue_batch(queue text, payloads jsonb[], keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL, dedup_keys text[] DEFAULT NULL, priority int DEFAULT NULL,
    delay interval DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint[] LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_enqueue_batch';
COMMENT ON FUNCTION queue.enqueue_batch(text, jsonb[], text[], jsonb[], text[], int, interval, timestamptz, interval, jsonb) IS
'Put many messages into a queue, all or nothing; returns their ids in order.';

CREATE FUNCTION queue.enqueue_bytes_batch(queue text, bodies bytea[], keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL, dedup_keys text[] DEFAULT NULL, priority int DEFAULT NULL,
    delay interval DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint[] LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_enqueue_bytes_batch';
COMMENT ON FUNCTION queue.enqueue_bytes_batch(text, bytea[], text[], jsonb[], text[], int, interval, timestamptz, interval, jsonb) IS
'Put many messages of bytes into a queue, all or nothing; returns their ids in order.';
