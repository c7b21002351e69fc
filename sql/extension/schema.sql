/* Schemas. Never IF NOT EXISTS: a user's schema must not be adopted. */

CREATE SCHEMA queue;
CREATE SCHEMA queues;

COMMENT ON SCHEMA queue IS 'transactional outbox and durable queues: functions, types, views';
COMMENT ON SCHEMA queues IS 'one view for each queue, and the segments that hold the messages';
