/* What is behind the view of a queue. */

CREATE FUNCTION queue._peek(queue int,
    OUT id bigint, OUT state text, OUT enqueued_at timestamptz, OUT deliver_at timestamptz,
    OUT expires_at timestamptz, OUT key text, OUT priority smallint, OUT headers jsonb,
    OUT payload jsonb, OUT body bytea, OUT failures int, OUT last_error text,
    OUT lease_until timestamptz, OUT lease_owner regrole)
RETURNS SETOF record LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_peek';
COMMENT ON FUNCTION queue._peek(int) IS 'Rows of a queue''s view; checks SELECT on it for the caller.';

CREATE FUNCTION queue._view_insert() RETURNS trigger LANGUAGE C
AS 'MODULE_PATHNAME', 'queue_view_insert';
COMMENT ON FUNCTION queue._view_insert() IS 'INSERT into a queue''s view enqueues.';

CREATE FUNCTION queue._view_delete() RETURNS trigger LANGUAGE C
AS 'MODULE_PATHNAME', 'queue_view_delete';
COMMENT ON FUNCTION queue._view_delete() IS 'DELETE from a queue''s view cancels.';

CREATE FUNCTION queue._view_update() RETURNS trigger LANGUAGE C
AS 'MODULE_PATHNAME', 'queue_view_update';
COMMENT ON FUNCTION queue._view_update() IS 'UPDATE of a queue''s view is an error.';
