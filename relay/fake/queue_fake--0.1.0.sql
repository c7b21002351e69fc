\echo Use "CREATE EXTENSION queue_fake" to load this file. \quit

CREATE FUNCTION queue.queue_fake_validator(text[], oid)
RETURNS void LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'queue_sink_validator';
COMMENT ON FUNCTION queue.queue_fake_validator(text[], oid) IS
'Checks options of foreign servers and user mappings with the library queue_fake.';

CREATE FOREIGN DATA WRAPPER queue_fake VALIDATOR queue.queue_fake_validator;
COMMENT ON FOREIGN DATA WRAPPER queue_fake IS 'Destinations of relays in tests.';
