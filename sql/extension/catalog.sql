/*
 * The catalog. Its rows change when a queue is created, altered, paused or
 * dropped, and when a segment is made: never per message, but for one that dies and blocks its key, and for states of keys.
 */

-- One sequence for the database: an id is kept through retries, dead letters
-- and moves, and is not given twice, after a failover neither.
CREATE SEQUENCE queue.message_id AS bigint;
CREATE SEQUENCE queue.queue_id AS int;

CREATE TABLE queue._queue (
    id             int CONSTRAINT _queue_pkey PRIMARY KEY,
    view           regclass NOT NULL CONSTRAINT _queue_view_key UNIQUE,
    options        jsonb NOT NULL,
    dead_letter    regclass,
    dead_letter_of int,
    paused_dequeue boolean NOT NULL DEFAULT false,
    paused_enqueue boolean NOT NULL DEFAULT false,
    pause_reason   text,
    created_at     timestamptz NOT NULL
);

CREATE TABLE queue._segment (
    relation regclass CONSTRAINT _segment_pkey PRIMARY KEY,
    queue    int NOT NULL,
    number   int NOT NULL,
    CONSTRAINT _segment_queue_key UNIQUE (queue, number)
);

-- Keys of ordered queues that a dead message blocks: one row a death, until the key is unblocked. With
-- on_dead = dead_rest the messages of the key behind it with ids below rest_to are moved first.
CREATE TABLE queue._blocked_key (
    queue   int,
    key     text,
    message bigint,
    since   timestamptz NOT NULL,
    rest_to bigint,
    CONSTRAINT _blocked_key_pkey PRIMARY KEY (queue, key, message)
);

-- What limits a queue: of all (scope queue), of each consumer or key, or of one by name, which stands there behind a "=".
CREATE TABLE queue._limit (
    queue     int,
    scope     text CHECK (scope IN ('queue', 'consumer', 'key')),
    name      text,
    in_flight int,
    rate      float8,
    burst     float8,
    weight    float8,
    CONSTRAINT _limit_pkey PRIMARY KEY (queue, scope, name)
);

-- What consumers keep of keys of ordered queues: a row a key that has a state.
CREATE TABLE queue._key_state (
    queue      int,
    key        text COLLATE "C",
    state      jsonb NOT NULL,
    changed_at timestamptz NOT NULL,
    CONSTRAINT _key_state_pkey PRIMARY KEY (queue, key)
);

SELECT pg_catalog.pg_extension_config_dump('queue.message_id', '');
SELECT pg_catalog.pg_extension_config_dump('queue.queue_id', '');
SELECT pg_catalog.pg_extension_config_dump('queue._queue', '');
SELECT pg_catalog.pg_extension_config_dump('queue._segment', '');
SELECT pg_catalog.pg_extension_config_dump('queue._blocked_key', '');
SELECT pg_catalog.pg_extension_config_dump('queue._limit', '');
SELECT pg_catalog.pg_extension_config_dump('queue._key_state', '');
