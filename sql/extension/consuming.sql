/* Consuming. */

CREATE FUNCTION queue.dequeue(queue text, max_messages int DEFAULT 1,
    lease interval DEFAULT NULL, wait interval DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS SETOF queue.message LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'queue_dequeue';
COMMENT ON FUNCTION queue.dequeue(text, int, interval, interval, jsonb) IS
'Lease messages to the caller; waits for one if told to. Options: attempt_id, consumer, key, max_bytes.';

CREATE FUNCTION queue.pop(queue text, max_messages int DEFAULT 1)
RETURNS SETOF queue.message LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'queue_pop';
COMMENT ON FUNCTION queue.pop(text, int) IS
'Dequeue and ack in one step; a rollback returns the messages and counts as a failure.';

CREATE PROCEDURE queue.wait(queue text, timeout interval, INOUT ready boolean DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'queue_wait';
COMMENT ON PROCEDURE queue.wait(text, interval, boolean) IS
'Sleep without a snapshot until something can be dequeued; outside a transaction block.';

CREATE FUNCTION queue.ack(receipt uuid)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_ack';
COMMENT ON FUNCTION queue.ack(uuid) IS
'The message is done, if this transaction commits. Error QU001 if the lease is lost.';

CREATE FUNCTION queue.ack_batch(receipts uuid[])
RETURNS int LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_ack_batch';
COMMENT ON FUNCTION queue.ack_batch(uuid[]) IS
'Ack all, or raise QU001 if any lease is lost. Returns how many.';

CREATE FUNCTION queue.try_ack(receipts uuid[])
RETURNS TABLE (receipt uuid, status text) LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_try_ack';
COMMENT ON FUNCTION queue.try_ack(uuid[]) IS
'Ack what can be acked; a status for each: acked, already_acked, lost, invalid, denied.';

CREATE FUNCTION queue.nack(receipt uuid, error text DEFAULT NULL, delay interval DEFAULT NULL,
    options jsonb DEFAULT NULL)
RETURNS text LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_nack';
COMMENT ON FUNCTION queue.nack(uuid, text, interval, jsonb) IS
'The message failed: retry after the backoff or the delay, or dead at the limit.';

CREATE FUNCTION queue.nack_batch(receipts uuid[], error text DEFAULT NULL,
    delay interval DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS TABLE (receipt uuid, status text) LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_nack_batch';
COMMENT ON FUNCTION queue.nack_batch(uuid[], text, interval, jsonb) IS
'nack for many; a status for each: retry, dead, already_acked, lost, invalid, denied.';

CREATE FUNCTION queue.reject(receipt uuid, reason text DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_reject';
COMMENT ON FUNCTION queue.reject(uuid, text) IS
'The message can never succeed: to the dead-letter queue now.';

CREATE FUNCTION queue.release(receipt uuid, delay interval DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_release';
COMMENT ON FUNCTION queue.release(uuid, interval) IS
'Give the message back, at once or later, without counting a failure. Takes effect now, not at commit.';

CREATE FUNCTION queue.release_batch(receipts uuid[], delay interval DEFAULT NULL)
RETURNS TABLE (receipt uuid, status text) LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_release_batch';
COMMENT ON FUNCTION queue.release_batch(uuid[], interval) IS
'release for many; a status for each: released, already_acked, lost, invalid, denied.';

CREATE FUNCTION queue.extend(receipt uuid, lease interval DEFAULT NULL)
RETURNS timestamptz LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_extend';
COMMENT ON FUNCTION queue.extend(uuid, interval) IS
'Heartbeat: the lease ends after this time from now, at most lease_max after the dequeue. Takes effect now.';

CREATE FUNCTION queue.extend_batch(receipts uuid[], lease interval DEFAULT NULL)
RETURNS TABLE (receipt uuid, status text) LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_extend_batch';
COMMENT ON FUNCTION queue.extend_batch(uuid[], interval) IS
'extend for many; a status for each: extended, already_acked, lost, invalid, denied.';

CREATE FUNCTION queue.blocked_keys(queue text)
RETURNS TABLE (key text, message bigint, since timestamptz, on_dead text) LANGUAGE C STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_blocked_keys';
COMMENT ON FUNCTION queue.blocked_keys(text) IS
'Keys of an ordered queue that a dead message blocks: its id, since when, and whether they wait to be unblocked (block) or the rest is being moved (dead_rest).';

CREATE FUNCTION queue.unblock(queue text, key text)
RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_unblock';
COMMENT ON FUNCTION queue.unblock(text, text) IS
'Let the messages of a blocked key go on; whether it was blocked. NULL: those without a key.';

CREATE FUNCTION queue.get_key_state(receipt uuid)
RETURNS jsonb LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_get_key_state';
COMMENT ON FUNCTION queue.get_key_state(uuid) IS
'What the holders of messages of this message''s key have kept; NULL if nothing. Only in ordered queues.';

CREATE FUNCTION queue.set_key_state(receipt uuid, state jsonb)
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_set_key_state';
COMMENT ON FUNCTION queue.set_key_state(uuid, jsonb) IS
'Keep this for the next who holds a message of the key, if this transaction commits; NULL deletes it. The message stays the caller''s until then.';
