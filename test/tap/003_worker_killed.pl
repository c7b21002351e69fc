# Delivery does not depend on the worker: it is killed over and over, and nothing is lost or wrong.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "max_attempts": 3, "segment_size": "64kB"}');
	CREATE TABLE done (n int);
	CREATE TABLE tries (n int, attempt int);
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');
my $kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'queue worker'";
my $pid = worker_pid($node);
$node->safe_psql('postgres', $kill);
ok(await($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'queue worker' AND pid <> $pid)", limit => 30),
	'it comes back');

my $sent = 0;
for my $round (1 .. 15)
{
	$node->safe_psql('postgres', $kill);
	$node->safe_psql('postgres', "SELECT queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 20)))
		FROM generate_series($sent + 1, $sent + 100) n");
	$sent += 100;
	$node->safe_psql('postgres', $kill);
	# a third is acked, a third nacked, a third left to its deadline
	$node->safe_psql('postgres', q{
		CREATE TEMP TABLE m AS SELECT * FROM queue.dequeue('q', 100);
		INSERT INTO tries SELECT payload::int, attempt FROM m;
		INSERT INTO done SELECT payload::int FROM m WHERE payload::int % 3 = 0;
		SELECT count(queue.ack(receipt)) FROM m WHERE payload::int % 3 = 0;
		SELECT count(queue.nack(receipt, 'broken')) FROM m WHERE payload::int % 3 = 1;
	});
	advance($node, '31 s') if $round % 3 == 0;
	$node->safe_psql('postgres', $kill);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'queue launcher'")
	  if $round % 5 == 0;
}
ok(await_worker($node, 'postgres', 1, 15), 'the worker is back');
for my $round (1 .. 40)
{
	last if $node->safe_psql('postgres', 'SELECT count(*) FROM queues.q') eq '0';
	advance($node, '31 s');
	$node->safe_psql('postgres', q{
		CREATE TEMP TABLE m AS SELECT * FROM queue.dequeue('q', 1000, wait => '1 s');
		INSERT INTO tries SELECT payload::int, attempt FROM m;
		INSERT INTO done SELECT payload::int FROM m WHERE payload::int % 3 = 0;
		SELECT count(queue.ack(receipt)) FROM m WHERE payload::int % 3 = 0;
		SELECT count(queue.nack(receipt, 'broken')) FROM m WHERE payload::int % 3 = 1;
	});
}
ok(await($node, 'SELECT count(*) FROM queues.q', expected => '0'), 'every message has left the queue');
is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT n) FROM done'), '0', 'none was acked twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done'), $sent / 3, 'all that were to be acked were');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queues.q_dead'), $sent - $sent / 3, 'the others are dead letters');
is($node->safe_psql('postgres', 'SELECT max(attempt) FROM tries'), '3', 'no attempt beyond the limit');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT FROM tries GROUP BY n, attempt HAVING count(*) > 1) AS twice}), '0',
	'no attempt was given twice');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT headers->'queue.death'->>'attempts', ' ') FROM queues.q_dead}), '3',
	'each died of its last attempt');

# while there is none: the launcher stopped, deliveries by deadline go on
$node->safe_psql('postgres', "SELECT queue.create('alone', '{\"backoff\": \"none\", \"max_attempts\": 2}'); SELECT queue.enqueue('alone', '1')");
my $launcher = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue launcher'");
kill 'STOP', $launcher;
$node->safe_psql('postgres', $kill);
ok(await_worker($node, 'postgres', 0), 'no worker');
is($node->safe_psql('postgres', "SELECT attempt FROM queue.dequeue('alone')"), '1', 'a message comes');
advance($node, '31 s');
is($node->safe_psql('postgres', "SELECT attempt FROM queue.dequeue('alone')"), '2', 'again after its deadline');
advance($node, '31 s');
is($node->safe_psql('postgres', "SELECT attempt FROM queue.dequeue('alone')"), '', 'never beyond its last attempt');
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.alone"), '1', 'and is not lost');
kill 'CONT', $launcher;
ok(await($node, "SELECT count(*) FROM queues.alone_dead", expected => '1'), 'the worker moves it when it is back');

# What a prepared transaction purged is counted anew when it has ended. The worker that does so is terminated in the
# middle: it waits for a segment that somebody has locked.
$node->safe_psql('postgres', q{
	SELECT queue.create('counted');
	SELECT count(queue.enqueue('counted', to_jsonb(n))) FROM generate_series(1, 10) n;
	BEGIN;
	SELECT queue.purge('counted');
	PREPARE TRANSACTION 'p';
});
my $segment = $node->safe_psql('postgres', "SELECT segment FROM queue.segments WHERE queue = 'counted'");
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN');
$locker->query_until(qr/go/, "\\echo go\nLOCK TABLE $segment IN ACCESS EXCLUSIVE MODE;\n");
ok(await($node, "SELECT count(*) = 1 FROM pg_locks WHERE relation = '$segment'::regclass AND NOT granted"), 'it waits for the prepared transaction');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
ok(await($node, q{SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity
	WHERE backend_type = 'queue worker' AND query = 'counting messages' AND wait_event_type = 'Lock'}), 'the worker is terminated as it counts');
$locker->query_safe('COMMIT');
$locker->quit;
ok(await($node, "SELECT ready = 0 AND exact FROM queue.stats WHERE queue = 'counted'", limit => 20), 'its successor counts');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
