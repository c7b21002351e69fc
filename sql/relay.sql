-- Relays: making them, their rights, and what a runner outside of the server does.
-- What is delivered, and by whom, is in test/tap and relay/.
CREATE ROLE regress_relay_owner;
CREATE ROLE regress_relay_other;
GRANT CREATE ON SCHEMA queues TO regress_relay_owner;
CREATE EXTENSION queue_file;

-- a library that may not be loaded
SET queue.sink_libraries = '';
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all');
RESET queue.sink_libraries;

-- options of destinations
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file;
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file OPTIONS (path 'relative');
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all', colour 'red');
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all', rotate_size 'many');
CREATE SERVER regress_file FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all');
CREATE USER MAPPING FOR regress_relay_owner SERVER regress_file OPTIONS (path '/elsewhere');
CREATE FOREIGN TABLE regress_table (a int) SERVER regress_file OPTIONS (a 'b');
ALTER FOREIGN DATA WRAPPER queue_file OPTIONS (a 'b');
CREATE FOREIGN DATA WRAPPER regress_plain;
CREATE SERVER regress_plain FOREIGN DATA WRAPPER regress_plain;
CREATE FUNCTION regress_wrong(text[], oid) RETURNS void LANGUAGE C AS '$libdir/queue', 'queue_sink_validator';
CREATE FOREIGN DATA WRAPPER regress_wrong VALIDATOR regress_wrong;
DROP FUNCTION regress_wrong;

-- rights: a file of the server
GRANT USAGE ON FOREIGN DATA WRAPPER queue_file TO regress_relay_owner;
SET ROLE regress_relay_owner;
CREATE SERVER regress_other FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all');
RESET ROLE;
GRANT pg_write_server_files TO regress_relay_owner;
SET ROLE regress_relay_owner;
CREATE SERVER regress_other FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all');
SELECT queue.create('regress_mine', '{"ordered": true}');

-- rights: the queue, the server
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_file', '{"runner": "program"}');
RESET ROLE;
SELECT queue.create('regress_his');
SET ROLE regress_relay_owner;
SELECT queue.create_relay('regress_r', 'regress_his', 'regress_other', '{"runner": "program"}');

-- what is wrong
SELECT queue.create_relay(NULL, 'regress_mine', 'regress_other');
SELECT queue.create_relay('regress_r', NULL, 'regress_other');
SELECT queue.create_relay('regress_r', 'regress_mine', NULL);
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', NULL);
SELECT queue.create_relay('', 'regress_mine', 'regress_other');
SELECT queue.create_relay('regress_r', 'regress_none', 'regress_other');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_none');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"colour": "red"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"runner": "nobody"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"max_in_flight": 0}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"timeout": "0"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"lease": "1 day"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"log": "yes"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"target": "{nothing}"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"filter": "$ &"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"format": "xml"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"runner": "program"}');
SELECT queue.create_relay('regress_r', 'regress_mine', 'regress_other', '{"runner": "program"}');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_plain TO regress_relay_owner;
SET ROLE regress_relay_owner;
SELECT queue.create_relay('regress_p', 'regress_mine', 'regress_plain', '{"runner": "program"}');

-- change it
SELECT queue.alter_relay('regress_r', '{"log": true, "max_in_flight": 10}');
SELECT queue.alter_relay('regress_r', '{"max_in_flight": null, "target": "orders.{key}"}');
SELECT queue.alter_relay('regress_r', '{"target": "{"}');
SELECT queue.create_relay('regress_s', 'regress_mine', 'regress_other', '{"runner": "program", "filter": "$.key"}');
SELECT queue.alter_relay('regress_none', '{}');
SELECT queue.alter_relay('regress_r', NULL);
SELECT relay, queue, server, owner, options, state, pause_reason, runner, parked_keys FROM queue.relays;

-- others see nothing and may nothing
SET ROLE regress_relay_other;
SELECT count(*) FROM queue.relays;
SELECT queue.alter_relay('regress_r', '{}');
SELECT queue.pause_relay('regress_r');
SELECT queue.resume_relay('regress_r');
SELECT queue.drop_relay('regress_r');
SELECT queue.relay_test('regress_r');
SELECT queue._relay_begin('regress_r', 'thief');
SELECT queue.adopt();
SELECT * FROM queue._relay;

-- a runner
SET ROLE regress_relay_owner;
SELECT queue.relay_test('regress_r');
SELECT epoch > 0 AS epoch, library, queue, settings, trusted, version <> 0 AS version, max_in_flight, timeout, ordered,
       breaker_failures, breaker_pause, breaker_pause_max, lease
FROM queue._relay_begin('regress_r', 'the first');
SELECT queue._relay_begin('regress_r', 'the second');
SELECT state, runner, in_flight, breaker FROM queue.relays;
SELECT epoch FROM queue.relays \gset
SELECT count(queue.enqueue('regress_mine', jsonb_build_object('n', n), key => 'k' || n % 2, headers => '{"Trace": "a"}'))
FROM generate_series(1, 6) n;
CREATE TEMP TABLE taken AS SELECT * FROM queue._relay_take('regress_r', :epoch, 4);
SELECT attempt, gate, event LIKE message || '-%' AS event, key, target, content_type,
       ARRAY(SELECT h FROM unnest(headers) h WHERE h !~ '^\d+$' AND h NOT LIKE '20%' AND h NOT LIKE '%-%' ORDER BY h) AS headers,
       convert_from(body, 'UTF8') AS body
FROM taken ORDER BY message;
SELECT * FROM queue._relay_take('regress_r', :epoch - 1, 4);
SELECT queue._relay_take('regress_r', NULL, 4);
SELECT queue._relay_take('regress_r', :epoch, 0);
SELECT consumer, state, count(*) FROM queue.leases WHERE queue = 'regress_mine' GROUP BY 1, 2;
-- one is delivered, one fails, one is rejected; what is behind the failed one is lost
SELECT queue._relay_settle('regress_r', :epoch, array_agg(receipt ORDER BY message), ARRAY[0, 1, 3, 2],
    ARRAY[0, 60000, 0, 0], ARRAY['HTTP 200', 'HTTP 503', 'HTTP 422', ''], array_agg(message ORDER BY message),
    array_agg(attempt ORDER BY message), array_agg(event ORDER BY message), array_agg(target ORDER BY message)) AS lost
FROM taken;
SELECT state, key, failures, last_error, payload FROM queues.regress_mine ORDER BY id;
SELECT payload, headers->'queue.death'->>'reason' AS reason, headers->'queue.death'->>'error' AS error FROM queues.regress_mine_dead;
SELECT relay, queue, event LIKE message || '-%' AS event, target, attempt, answer FROM queue.relay_log;
SELECT queue._relay_settle('regress_r', :epoch, array_agg(receipt ORDER BY message), ARRAY[0, 0, 0, 0],
    ARRAY[0, 0, 0, 0], ARRAY['', '', '', ''], array_agg(message ORDER BY message),
    array_agg(attempt ORDER BY message), array_agg(event ORDER BY message), array_agg(target ORDER BY message)) AS lost
FROM taken;
SELECT queue._relay_settle('regress_r', :epoch, ARRAY[]::uuid[], ARRAY[1], ARRAY[]::bigint[], ARRAY[]::text[],
    ARRAY[]::bigint[], ARRAY[]::int[], ARRAY[]::text[], ARRAY[]::text[]);
SELECT queue._relay_settle('regress_r', :epoch, ARRAY[gen_random_uuid()], ARRAY[9], ARRAY[0], ARRAY[''], ARRAY[1], ARRAY[1], ARRAY[''], ARRAY['']);
-- signs of life
SELECT version FROM (SELECT queue._relay_end('regress_r', :epoch)) e, LATERAL queue._relay_begin('regress_r', 'the second') \gset
SELECT epoch AS older, epoch FROM queue.relays \gset
SELECT * FROM queue._relay_renew('regress_r', :epoch, '{}', :version, ARRAY[5, 1, 1, 2, 1, 7, 9, 1, 60000000], 'it hurts');
SELECT runner, in_flight, held, breaker, breaker_until > now() AS until, delivered, failed, ambiguous, throttled, rejected, lost, last_error
FROM queue.relays;
SELECT state FROM queue._relay_renew('regress_r', :epoch + 1, '{}', :version, ARRAY[0, 0, 0, 0, 0, 0, 0, 0, 0], NULL);
SELECT state FROM queue._relay_renew('regress_r', :epoch, '{}', :version, ARRAY[0], NULL);
SELECT queue.alter_relay('regress_r', '{"log": null}');
SELECT state FROM queue._relay_renew('regress_r', :epoch, '{}', :version, ARRAY[0, 0, 0, 0, 0, 0, 0, 0, 0], NULL);
SELECT queue.pause_relay('regress_r');
SELECT state FROM queue._relay_renew('regress_r', :epoch, '{}', :version, ARRAY[0, 0, 0, 0, 0, 0, 0, 0, 0], NULL);
SELECT state FROM queue.relays;
SELECT * FROM queue._relay_take('regress_r', :epoch, 4);
-- the end, with a reason
SELECT queue.resume_relay('regress_r');
SELECT queue._relay_end('regress_r', :epoch, 'HTTP 410');
SELECT state, pause_reason, runner FROM queue.relays;
SELECT queue._relay_begin('regress_r', 'the third');
SELECT queue.resume_relay('regress_r');
-- what a runner has left is there for the next one, and counts nothing
SELECT epoch FROM queue._relay_begin('regress_r', 'the fourth') \gset
SELECT message, attempt FROM queue._relay_take('regress_r', :epoch, 1) \gset
SELECT queue._relay_end('regress_r', :epoch);
SELECT epoch FROM queue._relay_begin('regress_r', 'the fifth') \gset
SELECT message = :message AS same, attempt = :attempt AS not_counted FROM queue._relay_take('regress_r', :epoch, 1);
SELECT queue._relay_end('regress_r', :epoch);

-- filter, and what cannot be sent
SELECT queue.alter_relay('regress_r', '{"filter": "$.payload.n > 5", "target": "{headers.topic}"}');
SELECT queue.purge('regress_mine', '{"states": ["ready", "delayed", "failed", "leased"]}') > 0 AS purged;
SELECT queue.enqueue('regress_mine', '{"n": 1}', headers => '{"topic": "t"}') > 0;
SELECT queue.enqueue('regress_mine', '{"n": 7}', headers => '{"topic": "t"}') > 0;
SELECT queue.enqueue('regress_mine', '{"n": 8}') > 0;
SELECT epoch FROM queue._relay_begin('regress_r', 'the sixth') \gset
SELECT target, convert_from(body, 'UTF8') FROM queue._relay_take('regress_r', :epoch, 10);
SELECT filtered, rejected FROM queue.relays;
SELECT payload, headers->'queue.death'->>'error' AS error FROM queues.regress_mine_dead ORDER BY id DESC LIMIT 1;
SELECT queue._relay_end('regress_r', :epoch);

-- rights that were taken back
RESET ROLE;
REVOKE ALL ON FOREIGN SERVER regress_other FROM regress_relay_owner;
ALTER SERVER regress_other OWNER TO CURRENT_USER;
SET ROLE regress_relay_owner;
SELECT queue._relay_begin('regress_r', 'without rights');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_other TO regress_relay_owner;

-- a database that was copied
UPDATE queue._relay SET system_identifier = 1;
SELECT state FROM queue.relays;
SELECT queue._relay_begin('regress_r', 'a copy');
SELECT queue.adopt();
SELECT state FROM queue.relays;

-- what is used stays
DROP SERVER regress_other;
ALTER SERVER regress_other RENAME TO regress_another;
DROP EXTENSION queue_file CASCADE;
DROP FOREIGN DATA WRAPPER queue_file CASCADE;
SELECT queue.drop('regress_mine', true);
SELECT queue.drop_relay('regress_r');
SELECT queue.drop_relay('regress_r');
SELECT queue.drop('regress_mine', true);
SELECT queue.drop('regress_his');
SELECT check_name, detail FROM (SELECT "check" AS check_name, status, detail FROM queue.health()) h WHERE check_name = 'relays';
DROP TABLE taken;
DROP EXTENSION queue_file CASCADE;
DROP FOREIGN DATA WRAPPER regress_plain CASCADE;
REVOKE CREATE ON SCHEMA queues FROM regress_relay_owner;
DROP ROLE regress_relay_owner, regress_relay_other;
