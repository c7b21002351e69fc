# Limits hold whatever runs side by side, nothing that waited for room is forgotten, who waits is woken.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use List::Util qw(sum);
use Test::More;

my $node = new_node('main', conf => "queue.worker_interval = '100ms'\nqueue.recheck_interval = '100ms'\nmax_prepared_transactions = 5");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE TABLE work (queue text, key text, consumer text, began timestamptz, ended timestamptz);

	-- Consume until nothing comes: what is written down is held for at least so long.
	CREATE PROCEDURE consume(name text, consumer text, batch int) LANGUAGE plpgsql AS
	$$ DECLARE
		receipts uuid[];
		keys text[];
		began timestamptz;
		idle int = 0;
	BEGIN
		WHILE idle < 3 LOOP
			SELECT array_agg(d.receipt), array_agg(d.key) INTO receipts, keys
			FROM queue.dequeue(name, batch, '1 min', '200 ms', jsonb_build_object('consumer', consumer)) d;
			COMMIT;
			IF receipts IS NULL THEN
				idle = idle + 1;
				CONTINUE;
			END IF;
			idle = 0;
			began = clock_timestamp();
			PERFORM pg_sleep(random() * 0.002);
			INSERT INTO work SELECT name, k, consumer, began, clock_timestamp() FROM unnest(keys) k;
			IF random() < 0.1 THEN
				PERFORM queue.nack(r, delay => '0') FROM unnest(receipts) r;
			ELSIF random() < 0.1 THEN
				PERFORM queue.release(r) FROM unnest(receipts) r;
			ELSE
				PERFORM queue.ack_batch(receipts);
			END IF;
			COMMIT;
		END LOOP;
	END $$;

	-- Most that were held at a time, of each group.
	CREATE FUNCTION most(name text, by text) RETURNS bigint LANGUAGE plpgsql AS
	$$ DECLARE
		result bigint;
	BEGIN
		EXECUTE format('SELECT max(held) FROM (SELECT sum(change) OVER (PARTITION BY %s ORDER BY at, change) AS held FROM '
			'(SELECT key, consumer, began AS at, 1 AS change FROM work WHERE queue = %L UNION ALL '
			'SELECT key, consumer, ended, -1 FROM work WHERE queue = %L) s) t', by, name, name) INTO result;
		RETURN result;
	END $$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

# Clients that consume side by side, each with a name of its own, until nothing is left.
sub consume
{
	my ($queue, $clients, $batch) = @_;
	my $script = $node->basedir . "/$queue.sql";

	append_to_file($script, "CALL consume('$queue', 'c' || :client_id, $batch);\n");
	command_ok([ $node->installed_command('pgbench'), '-n', '-h', $node->host, '-p', $node->port,
			'-c', $clients, '-j', 2, '-t', 1, '-f', $script, 'postgres' ], "$clients clients consume $queue");
}

# ----- in flight, of the queue and of its consumers

query(q{
	SELECT queue.create('flight', '{"max_attempts": 0}');
	SELECT queue.limit('flight', 'queue', in_flight => 5);
	SELECT queue.limit('flight', 'consumer', in_flight => 2);
	SELECT queue.limit('flight', 'consumer', 'c0', in_flight => 1);
	SELECT count(queue.enqueue('flight', to_jsonb(n))) FROM generate_series(1, 1500) n;
});
consume('flight', 8, 4);
is(query(q{SELECT ready + leased + failed FROM queue.stats WHERE queue = 'flight'}), '0', 'all came');
is(query(q{SELECT most('flight', '1')}), '5', 'five at a time');
is(query(q{SELECT most('flight', 'consumer')}), '2', 'two at a time of a consumer');
is(query(q{SELECT max(held) FROM (SELECT count(*) AS held FROM work WHERE queue = 'flight' AND consumer = 'c0' GROUP BY began) s}),
	'1', 'one at a time of one of them');
is(query(q{SELECT max(leased) FROM queue.limits WHERE queue = 'flight'}), '0', 'nothing is in use at the end');

# ----- in flight of keys: more than a key remembers one by one, in many segments

query(q{
	SELECT queue.create('keys', '{"segment_size": "64 kB", "max_attempts": 0}');
	SELECT queue.limit('keys', 'key', in_flight => 1);
	SELECT queue.limit('keys', 'key', 'k1', in_flight => 2);
	SELECT count(queue.enqueue('keys', to_jsonb(repeat('x', 300)), key => 'k' || n % 4)) FROM generate_series(1, 4000) n;
	SELECT count(queue.enqueue('keys', to_jsonb(repeat('x', 300)), key => 'alone')) FROM generate_series(1, 500) n;
});
consume('keys', 8, 3);
is(query(q{SELECT ready + leased + failed FROM queue.stats WHERE queue = 'keys'}), '0', 'all of each key came');
is(query(q{SELECT max(held) FROM (SELECT most('keys', 'key') AS held) s}), '2', 'two at a time at most');
is(query(q{DELETE FROM work WHERE key = 'k1'; SELECT most('keys', 'key')}), '1', 'one at a time of the others');
is(query(q{SELECT count(*) FROM queue.limits WHERE waiting > 0}), '0', 'nobody waits at the end');

# ----- rates: no more than the bucket and what has run into it

query(q{
	SELECT queue.create('rates', '{"max_attempts": 0}');
	SELECT queue.limit('rates', 'queue', rate => 2000, burst => 50);
	SELECT queue.limit('rates', 'key', rate => 500, burst => 10);
	SELECT count(queue.enqueue('rates', to_jsonb(n), key => 'k' || n % 5)) FROM generate_series(1, 2500) n;
});
consume('rates', 8, 10);
is(query(q{SELECT ready + leased + failed FROM queue.stats WHERE queue = 'rates'}), '0', 'all came');
is(query(q{
		SELECT count(*) FROM (SELECT count(*) OVER w AS n, extract(epoch FROM began - min(began) OVER w) AS seconds
			FROM work WHERE queue = 'rates' WINDOW w AS (ORDER BY began)) s
		WHERE n > 60 + 2000 * (seconds + 0.2)}), '0', 'never more of the queue');
is(query(q{
		SELECT count(*) FROM (SELECT count(*) OVER w AS n, extract(epoch FROM began - min(began) OVER w) AS seconds
			FROM work WHERE queue = 'rates' WINDOW w AS (PARTITION BY key ORDER BY began)) s
		WHERE n > 20 + 500 * (seconds + 0.2)}), '0', 'never more of a key');

# ----- turns

query(q{
	SELECT queue.create('turns', '{"fair_share": true, "segment_size": "64 kB", "max_attempts": 0}');
	SELECT count(queue.enqueue('turns', to_jsonb(repeat('x', 300)), key => 'noisy')) FROM generate_series(1, 3000) n;
	SELECT count(queue.enqueue('turns', to_jsonb(repeat('x', 300)), key => 'k' || n % 300)) FROM generate_series(1, 3000) n;
});
is(query(q{SELECT count(DISTINCT key) FROM queue.pop('turns', 301)}), '301', 'each key has one of the first 301');
$node->restart;
is(query(q{SELECT count(DISTINCT key) FROM queue.pop('turns', 301)}), '301', 'and after a restart');
consume('turns', 8, 3);
is(query(q{SELECT ready + leased + failed FROM queue.stats WHERE queue = 'turns'}), '0', 'all came');

# A turn looks where its key has something, though the key's next message is a hundred pages
# from the last, and remembers few of them.
query(q{
	SELECT queue.create('wide', '{"fair_share": true, "max_attempts": 0}');
	SELECT count(queue.enqueue('wide', to_jsonb(repeat('x', 700)), key => 'k' || n % 1000)) FROM generate_series(1, 12000) n;
	SELECT count(*) FROM queue.pop('wide', 7500);
});
my $plans = query(join("\n", map { "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM queue.dequeue('wide');" } 1 .. 100));
my @buffers = $plans =~ /"Plan": \{.*?"Shared Hit Blocks": (\d+)/gs;
is(scalar(@buffers), 100, 'a hundred turns');
cmp_ok(sum(@buffers) / 100, '<', 10, 'each looks at a few pages');
is(query(q{SELECT count(DISTINCT key) FROM queue.leases JOIN queues.wide USING (id) WHERE queue = 'wide'}), '100', 'for another key');
is(query(q{SET statement_timeout = '1 min'; SELECT count(*) FROM queue.dequeue('wide', 100, '1 h', options => '{"key": "k999"}')}), '5', 'who asks for one key has all of it');
is(take_all($node, 'wide', 'count(queue.ack(receipt))'), '4395', 'and all the others are there');

# ----- who waits is woken by an end of any kind

query(q{
	SELECT queue.create('wait', '{"max_attempts": 0}');
	SELECT queue.limit('wait', 'queue', in_flight => 1);
	SELECT queue.limit('wait', 'key', 'k', in_flight => 1);
	SELECT count(queue.enqueue('wait', to_jsonb(n), key => 'k')) FROM generate_series(1, 20) n;
});
for my $end ('ack', 'release', 'reject', 'nack', 'limit')
{
	my $receipt = query(q{SELECT receipt FROM queue.dequeue('wait', 1, '1 h')});
	my $waiting = $node->background_psql('postgres', on_error_stop => 1);

	$waiting->query_until(qr/begun/, qq{\\echo begun\nSELECT queue.ack(receipt) FROM queue.dequeue('wait', 1, '1 h', '1 min');\n\\echo came\n});
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'QueueDequeue' OR (state = 'active' AND query LIKE '%1 min%' AND wait_event_type = 'Extension')}),
		'somebody waits');
	query($end eq 'limit' ? q{SELECT queue.limit('wait', 'queue'); SELECT queue.limit('wait', 'key', 'k')}
		: $end eq 'nack' ? qq{SELECT queue.nack('$receipt', delay => '1 h')} : qq{SELECT queue.$end('$receipt')});
	$waiting->query_until(qr/came/, "\n");
	pass("woken by $end");
	$waiting->quit;
}

# ----- an expired lease, with nobody but the one who is limited; a prepared end

query(q{
	SELECT queue.create('stuck', '{"segment_size": "64 kB", "max_attempts": 0, "backoff": "none"}');
	SELECT queue.limit('stuck', 'consumer', in_flight => 1);
	SELECT count(queue.enqueue('stuck', to_jsonb(repeat('x', 300)))) FROM generate_series(1, 400) n;
	-- the lease is on a late page
	SELECT queue.ack_batch(array_agg(receipt)) FROM queue.dequeue('stuck', 1, '1 s', options => '{"consumer": "other"}');
});
is(query(q{SELECT count(*) FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}')}), '1', 'one is had');
is(query(q{SELECT count(*) FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}')}), '0', 'and no more');
query(q{SELECT queue.clock_advance('61 min')});
is(query(q{SELECT count(*) FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}')}), '1', 'when it has run out another is');
query(q{SELECT queue.clock_advance('61 min')});
query(q{BEGIN; SELECT queue.ack(receipt) FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}'); PREPARE TRANSACTION 'p'});
is(query(q{SELECT count(*) FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}')}), '0', 'a prepared ack holds its message');
query(q{COMMIT PREPARED 'p'});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM queue.dequeue('stuck', 1, '1 h', options => '{"consumer": "me"}')}),
	'until it has committed');

# ----- limits come into force for what is there, whatever counted it before

query(q{
	SELECT queue.create('later', '{"max_attempts": 0, "backoff": "none"}');
	SELECT count(queue.enqueue('later', to_jsonb(n), key => 'k' || n)) FROM generate_series(1, 30) n;
});
query(q{SELECT queue.limit('later', 'key', in_flight => 1)});
is(query(q{SELECT count(*) FROM queue.dequeue('later', 10, '1 h')}), '10', 'ten are had under a limit of keys');
query(q{SELECT queue.limit('later', 'queue', in_flight => 5)});
is(query(q{SELECT count(*) FROM queue.dequeue('later', 10, '1 h')}), '0', 'and count when the queue is limited');
is(query(q{SELECT leased FROM queue.limits WHERE queue = 'later' AND scope = 'queue'}), '10', 'all of them');
is(sqlstate($node, q{BEGIN; SELECT queue.limit('later', 'queue'); PREPARE TRANSACTION 'later'}), '0A000',
	'a limit is not changed by a prepared transaction');
is(query(q{BEGIN; SELECT queue.limit('later', 'queue'); SELECT count(*) FROM queue.dequeue('later', 10, '1 h'); ROLLBACK}) =~ s/\s//gr, '0',
	'who changes limits gets nothing before that is committed');

# ----- a lease that had run out counts again when it is extended, and so does its deadline

query(q{
	SELECT queue.create('again', '{"max_attempts": 0, "backoff": "fixed", "backoff_base": "1 h"}');
	SELECT queue.limit('again', 'queue', in_flight => 1);
	SELECT queue.enqueue('again', '1');
});
# The failure is in the slot from the dequeue on; the worker may be quicker than the extend, then once more.
my $extended;
for (1 .. 50)
{
	my $late = query(q{SELECT receipt FROM queue.dequeue('again', 1, '1 s')});

	$extended = sqlstate($node, qq{SELECT queue.clock_advance('2 s') \\; SELECT count(*) FROM queue.dequeue('again', 5, '1 h') \\; SELECT queue.extend('$late', '1 h');});
	last if $extended eq '00000';
	query(q{SELECT queue.clock_advance('2 h')});
}
is($extended, '00000', 'a lease that had run out is extended');
query(q{SELECT count(queue.enqueue('again', to_jsonb(n))) FROM generate_series(2, 3) n});
is(query(q{SELECT leased FROM queue.limits WHERE queue = 'again'}), '1', 'it is counted');
is(query(q{SELECT count(*) FROM queue.dequeue('again', 5, '1 h')}), '0', 'there is no room beside it');

# ----- limits outlive a restart and a dump

$node->restart;
is(query(q{SELECT in_flight FROM queue.limits WHERE queue = 'stuck'}), '1', 'a restart keeps them');
is(query(q{SELECT count(*) FROM queue.dequeue('stuck', 5, '1 h', options => '{"consumer": "me"}')}), '1', 'and they hold');
query('CREATE DATABASE restored');
command_ok([ 'bash', '-c', 'pg_dump -h ' . $node->host . ' -p ' . $node->port . ' postgres | psql -qX -v ON_ERROR_STOP=1 -h ' . $node->host . ' -p ' . $node->port . ' restored >/dev/null' ],
	'a dump is restored');
is($node->safe_psql('restored', q{SELECT string_agg(concat_ws(' ', queue, scope, name, in_flight, rate, burst), ', ' ORDER BY queue, scope, name) FROM queue.limits}),
	query(q{SELECT string_agg(concat_ws(' ', queue, scope, name, in_flight, rate, burst), ', ' ORDER BY queue, scope, name) FROM queue.limits}),
	'with its limits');
is($node->safe_psql('restored', q{SELECT count(*) FROM queue.dequeue('stuck', 5, '1 h', options => '{"consumer": "me"}')}), '1', 'which hold there');

# ----- no memory for meters: what is limited waits, what only takes turns comes

$node->append_conf('postgresql.conf', 'queue.max_meters = 64');
$node->restart;
query(q{
	SELECT queue.create('many', '{"max_attempts": 0}');
	SELECT queue.limit('many', 'key', in_flight => 1);
	SELECT count(queue.enqueue('many', to_jsonb(n), key => 'k' || n)) FROM generate_series(1, 300) n;
});
my $had = query(q{CREATE TABLE had AS SELECT receipt FROM queue.dequeue('many', 300, '1 h'); SELECT count(*) FROM had});
cmp_ok($had, '<=', 64, 'no more than there are meters');
cmp_ok($had, '>', 0, 'but some');
query(q{SELECT queue.ack_batch(array_agg(receipt)) FROM had});
consume('many', 4, 10);
is(query(q{SELECT ready + leased + failed FROM queue.stats WHERE queue = 'many'}), '0', 'all came in the end');
query(q{
	SELECT queue.create('crowd', '{"fair_share": true}');
	SELECT count(queue.enqueue('crowd', to_jsonb(n), key => 'k' || n)) FROM generate_series(1, 300) n;
});
is(query(q{SELECT count(*) FROM queue.pop('crowd', 300)}), '300', 'without meters there are no turns');
is(query('SELECT * FROM queue.check()'), '', 'check() finds nothing');

$node->stop;
done_testing();
