\echo Use "CREATE EXTENSION queue_postgres" to load this file. \quit

-- The library of the sink is found by the name of its validator.
CREATE FUNCTION queue.queue_postgres_validator(options text[], catalog oid) RETURNS void
LANGUAGE C AS '$libdir/queue', 'queue_sink_validator';
COMMENT ON FUNCTION queue.queue_postgres_validator(text[], oid) IS
'judges the options of servers and user mappings of queue_postgres';

CREATE FOREIGN DATA WRAPPER queue_postgres VALIDATOR queue.queue_postgres_validator;
COMMENT ON FOREIGN DATA WRAPPER queue_postgres IS
'relays of queues into a queue of, or a function in, another PostgreSQL server';
