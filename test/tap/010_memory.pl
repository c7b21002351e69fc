# The memory of a backend stays flat over two hundred thousand operations, and in a
# transaction with many savepoints.

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
$session->query_safe('CALL rounds(5000); CALL batches(10)');
my $before = own_kb($pid);
my $worker_before = own_kb($worker);
# 80000 rounds of enqueue, dequeue and settle; 40 batches of 1000
$session->query_safe('CALL rounds(20000)') for 1 .. 4;
$session->query_safe('CALL batches(40)');
my $after = own_kb($pid);
my $worker_after = own_kb($worker);
note("backend $before kB, then $after kB; worker $worker_before kB, then $worker_after kB");
cmp_ok($after - $before, '<', 2048, 'the backend grew by less than 2 MB');
is(worker_pid($node), $worker, 'the worker is the same process');
cmp_ok($worker_after - $worker_before, '<', 2048, 'the worker grew by less than 2 MB');
is($session->query_safe("SELECT total_enqueued >= 135000 FROM queue.stats WHERE queue = 'q'"), 't', 'and did all that');
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
