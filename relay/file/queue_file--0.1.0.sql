\echo Use "CREATE EXTENSION queue_file" to load this file. \quit

CREATE FUNCTION queue.queue_file_validator(text[], oid)
RETURNS void LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'queue_sink_validator';
COMMENT ON FUNCTION queue.queue_file_validator(text[], oid) IS
'Checks options of foreign servers and user mappings with the library queue_file.';

CREATE FOREIGN DATA WRAPPER queue_file VALIDATOR queue.queue_file_validator;
COMMENT ON FOREIGN DATA WRAPPER queue_file IS
'Destinations of relays: files on the server, a JSON document a line.';
