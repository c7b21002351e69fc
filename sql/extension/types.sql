/* A message as dequeue and pop return it. It does not change. */

CREATE TYPE queue.message AS (
    id          bigint,
    receipt     uuid,
    queue       text,
    attempt     int,
    enqueued_at timestamptz,
    lease_until timestamptz,
    expires_at  timestamptz,
    key         text,
    priority    smallint,
    headers     jsonb,
    payload     jsonb,
    body        bytea,
    last_error  text
);

COMMENT ON TYPE queue.message IS
'A delivered message. Either payload (JSON) or body (bytes) is set; attempt is failures so far + 1.';
