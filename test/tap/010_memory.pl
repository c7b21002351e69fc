# The memory of a backend and of the worker stays flat over a million operations, and
# in a transaction with many savepoints; no slot, pin or lock is left behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "synchronous_commit = off\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "segment_size": "1MB"}');
	CREATE PROCEDURE rounds(n int) LANGUAGE plpgsql AS
	$$
	DECLARE
		m queue.message;
	BEGIN
		FOR i IN 1 .. n LOOP
			PERFORM queue.enqueue('q', '{"n": 1}', key => 'k', headers => '{"h": "v"}');
			COMMIT;
			SELECT * INTO m FROM queue.dequeue('q');
			IF m.receipt IS NOT NULL THEN
				IF i % 10 = 0 AND m.attempt = 1 THEN
					PERFORM queue.extend(m.receipt);
					PERFORM queue.nack(m.receipt, 'broken');
				ELSE
					PERFORM queue.ack(m.receipt);
				END IF;
			END IF;
			COMMIT;
			IF i % 10 = 0 THEN
				BEGIN
					PERFORM queue.ack(queue_receipt) FROM (SELECT gen_random_uuid() AS queue_receipt) AS r;
				EXCEPTION WHEN OTHERS THEN
					NULL;
				END;
				COMMIT;
			END IF;
		END LOOP;
	END
	$$;
	CREATE FUNCTION grown_by_savepoints(n int) RETURNS bigint LANGUAGE plpgsql AS
	$$
	DECLARE
		own constant text := $q$SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext'$q$;
		before bigint;
		after bigint;
	BEGIN
		EXECUTE own INTO before;
		FOR i IN 1 .. n LOOP
			BEGIN
				PERFORM queue.enqueue('q', '1');
				IF i % 3 = 0 THEN
					RAISE EXCEPTION 'undone';
				END IF;
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
		END LOOP;
		EXECUTE own INTO after;
		RETURN after - before;
	END
	$$;
	CREATE PROCEDURE batches(n int) LANGUAGE plpgsql AS
	$$
	BEGIN
		FOR i IN 1 .. n LOOP
			PERFORM queue.enqueue_batch('q', array_fill('1'::jsonb, ARRAY[1000]));
			COMMIT;
			PERFORM queue.ack_batch(ARRAY(SELECT receipt FROM queue.dequeue('q', 1000)));
			COMMIT;
		END LOOP;
	END
	$$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# Resident pages that are the process's own: shared memory it touched does not count.
sub own_kb
{
	my ($pid) = @_;
	my $status = slurp_file("/proc/$pid/status");

	$status =~ /^RssAnon:\s+(\d+) kB/m or die "no RssAnon";
	return $1;
}

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $worker = worker_pid($node);
# as much as below, until caches and malloc have what they need
$session->query_safe('CALL rounds(20000); CALL batches(50)') for 1 .. 2;
my $used = 'SELECT sum(used_bytes) FROM pg_backend_memory_contexts';
my $used_before = $session->query_safe($used);
my $before = own_kb($pid);
my $worker_before = own_kb($worker);
# 100000 times enqueue, dequeue and settle one; 250 times a thousand at once
$session->query_safe('CALL rounds(20000); CALL batches(50)') for 1 .. 5;
my $after = own_kb($pid);
my $worker_after = own_kb($worker);
my $used_after = $session->query_safe($used);
note("backend $before kB, then $after kB; worker $worker_before kB, then $worker_after kB; contexts $used_before, then $used_after");
# The first is exact, but blind to malloc; what malloc gives back is its own affair.
cmp_ok($used_after - $used_before, '<', 64 * 1024, 'the contexts of the backend grew by less than 64 kB');
cmp_ok($after - $before, '<', 1024, 'the backend grew by less than 1 MB');
is(worker_pid($node), $worker, 'the worker is the same process');
cmp_ok($worker_after - $worker_before, '<', 1024, 'the worker grew by less than 1 MB');
is($session->query_safe("SELECT total_enqueued + total_dequeued + total_acked >= 1000000 FROM queue.stats WHERE queue = 'q'"), 't', 'over a million operations');

# What a backend holds while it is idle, and the worker in between: nothing.
$node->safe_psql('postgres', q{SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 1000)});
ok(await($node, 'SELECT count(*) FROM queue.leases', expected => '0'), 'no message is held');
is($node->safe_psql('postgres', q{SELECT value FROM queue.health() WHERE "check" = 'lease_slots'}), '0 of 65536', 'no slot is left behind');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid"), '0', 'nor a lock');
ok(await($node, "SELECT count(*) FROM pg_locks WHERE pid = $worker", expected => '0'), 'nor one of the worker');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_buffercache');
ok(await($node, 'SELECT coalesce(sum(pinning_backends), 0) FROM pg_buffercache WHERE reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())',
	expected => '0'), 'nor a pin');
cmp_ok($session->query_safe("SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name ILIKE '%queue%'") || 0, '<', 1024 * 1024,
	'no context of its own is large');
cmp_ok($session->query_safe('SELECT grown_by_savepoints(50000)'), '<', 512 * 1024,
	'fifty thousand savepoints in a transaction leave little behind');
$session->quit;
$node->safe_psql('postgres', q{SELECT queue.purge('q')});
ok(await($node, "SELECT sum(size) < 20 * 1024 * 1024 FROM queue.segments", limit => 30), 'the disk neither');
check_ok($node);
$node->stop;
done_testing();
