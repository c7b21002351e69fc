/*
 * What is accepted once. The worker empties the tables of a span one after the
 * other, so nothing is ever deleted from them, and autovacuum has little to do.
 */

CREATE TABLE queue._seen_5min_1 (
    hash        uuid NOT NULL,
    id          bigint NOT NULL,
    accepted_at timestamptz NOT NULL
) USING heap WITH (autovacuum_enabled = false);
CREATE INDEX ON queue._seen_5min_1 (hash);

CREATE TABLE queue._seen_5min_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_5min_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1h_1 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1h_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1h_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1d_1 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1d_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1d_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1week_1 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1week_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1week_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1month_1 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1month_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1month_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1year_1 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1year_2 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_1year_3 (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap WITH (autovacuum_enabled = false);
CREATE TABLE queue._seen_ever (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap;

-- Unique keys whose messages are there; rows come and go with them.
CREATE TABLE queue._unique_key (LIKE queue._seen_5min_1 INCLUDING INDEXES) USING heap
    WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000000);

SELECT pg_catalog.pg_extension_config_dump('queue._seen_5min_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_5min_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_5min_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1h_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1h_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1h_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1d_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1d_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1d_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1week_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1week_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1week_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1month_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1month_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1month_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1year_1', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1year_2', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_1year_3', '');
SELECT pg_catalog.pg_extension_config_dump('queue._seen_ever', '');
SELECT pg_catalog.pg_extension_config_dump('queue._unique_key', '');

CREATE FUNCTION queue.once(consumer text, message_key text)
RETURNS boolean LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'queue_once';
COMMENT ON FUNCTION queue.once(text, text) IS
'Whether this consumer of the current role meets a message for the first time, in the caller''s transaction.';
