\echo Use "CREATE EXTENSION queue_http" to load this file. \quit

CREATE FUNCTION queue.queue_http_validator(text[], oid)
RETURNS void LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'queue_sink_validator';
COMMENT ON FUNCTION queue.queue_http_validator(text[], oid) IS
'Checks options of foreign servers and user mappings with the library queue_http.';

CREATE FOREIGN DATA WRAPPER queue_http VALIDATOR queue.queue_http_validator;
COMMENT ON FOREIGN DATA WRAPPER queue_http IS
'Destinations of relays: HTTP servers, a request a message.';
