-- Creating, altering and dropping queues.
CREATE EXTENSION IF NOT EXISTS queue;
SELECT queue.create('plain');
SELECT queue.create('plain');
SELECT queue.create('plain', '{"if_not_exists": true}');
SELECT queue.alter('plain', '{"if_not_exists": true}');
SELECT queue.create('Name with "quotes", spaces');
SELECT queue.enqueue('Name with "quotes", spaces', '1') IS NOT NULL AS sent;
SELECT payload FROM queues."Name with ""quotes"", spaces";
SELECT queue.create(repeat('x', 48)) IS NOT NULL AS made;
SELECT queue.create(repeat('x', 49));
SELECT queue.create(repeat('y', 48) || '_dead', '{"dead_letter": ""}') IS NOT NULL AS made;
SELECT queue.create('');
SELECT queue, dead_letter, paused_dequeue, paused_enqueue, options FROM queue.queues ORDER BY queue COLLATE "C";

-- options
SELECT queue.create('o', '{"nonsense": 1}');
SELECT queue.create('o', '{"retention": "1 d"}');
SELECT queue.create('o', '{"max_attempts": -1}');
SELECT queue.create('o', '{"lease_timeout": "soon"}');
SELECT queue.create('o', '{"lease_timeout": "13 h"}');
SELECT queue.create('o', '{"backoff": "list"}');
SELECT queue.create('o', '{"backoff": "sometimes"}');
SELECT queue.create('o', '{"dead_letter": "nowhere"}');
SELECT queue.create('o', '{"dead_letter": "o"}');
SELECT queue.create('o', '[]');
SELECT queue.create('o', '{"dead_letter": "plain", "segment_size": "128kB", "notify": false}');
SELECT queue, dead_letter, options FROM queue.queues WHERE queue = 'o';
SELECT queue.drop('plain');
SELECT queue.alter('o', '{"dead_letter": null, "max_attempts": 7}');
SELECT queue, dead_letter, options FROM queue.queues WHERE queue = 'o';
SELECT queue.alter('o', '{"max_attempts": null, "notify": null}');
SELECT queue, options FROM queue.queues WHERE queue = 'o';
SELECT queue.alter('o', '{"fifo": true}');
SELECT name, type, "default" FROM queue.options WHERE available ORDER BY name;

-- dropping
SELECT queue.enqueue('o', '1') IS NOT NULL AS sent;
SELECT queue.drop('o');
SELECT queue.drop('o', true);
SELECT queue.drop('o');
SELECT queue.drop('plain');
SELECT queue.drop('Name with "quotes", spaces', true);
SELECT queue.drop(repeat('x', 48));
SELECT queue.drop(repeat('y', 48) || '_dead');
SELECT count(*) FROM queue.queues;

-- created and dropped in a transaction that is rolled back
BEGIN;
SELECT queue.create('gone');
SELECT queue.enqueue('gone', '1') IS NOT NULL AS sent;
ROLLBACK;
SELECT queue.enqueue('gone', '1');
SELECT queue.create('stays');
BEGIN;
SELECT queue.drop('stays');
ROLLBACK;
SELECT queue.enqueue('stays', '1') IS NOT NULL AS sent;
SELECT payload FROM queue.pop('stays');
SELECT queue.drop('stays');
SELECT * FROM queue.check();
