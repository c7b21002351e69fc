# Segments are emptied in place, also while another transaction pins the horizon.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.reclaim_delay = 0\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"segment_size": "64kB"}');
	CREATE FUNCTION fill(n int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue('q', to_jsonb(i), headers => jsonb_build_object('fill', (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 30) j))))
	   FROM generate_series(1, n) i $$;
	CREATE FUNCTION size_of_q() RETURNS numeric LANGUAGE sql AS
	$$ SELECT coalesce(sum(pg_relation_size(segment)), 0) FROM queue.segments WHERE queue = 'q' $$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');

my $pin = $node->background_psql('postgres');
$pin->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$pin->query_safe('SELECT txid_current()');
my $files = "SELECT string_agg(relname || ' ' || relfilenode, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'queues'::regnamespace AND relkind = 'r'";
my $classes = "SELECT string_agg(relname || ' ' || xmin, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'queues'::regnamespace AND relkind IN ('r', 't')";

# Until no full segment is left, or tell why.
sub await_empty
{
	return 1 if await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0', limit => 60);
	diag($node->safe_psql('postgres', "SELECT number, state, size, live, kept_because FROM queue.segments WHERE queue = 'q'"));
	return 0;
}

# the first turns make the ring as long as it gets
my $largest = 0;
my ($files_before, $classes_before);
for my $turn (1 .. 30)
{
	for my $part (1 .. 3)
	{
		$node->safe_psql('postgres', 'SELECT fill(80)');
	}
	my $acked = take_all($node, 'q', 'count(queue.ack(receipt))');
	is($acked, 240, "turn $turn: all are there") if $turn % 10 == 0;
	ok(await_empty(), "turn $turn: what was sealed is empty") if $turn % 5 == 0;
	if ($turn == 10)
	{
		$files_before = $node->safe_psql('postgres', $files);
		$classes_before = $node->safe_psql('postgres', $classes);
	}
	my $size = $node->safe_psql('postgres', 'SELECT size_of_q()');
	$largest = $size if $turn > 10 && $size > $largest;
}
cmp_ok($largest, '<', 2 * 1024 * 1024, 'disk stays small: 30 turns of 240 messages of 1 kB with a pinned horizon');
my $files_after = $node->safe_psql('postgres', $files);
my $classes_after = $node->safe_psql('postgres', $classes);
like($files_after, qr/^\Q$_\E$|(^|,)\Q$_\E(,|$)/, "in place: $_") foreach split(/,/, $files_before);
like($classes_after, qr/(^|,)\Q$_\E(,|$)/, 'and its row of pg_class is the one that was') foreach split(/,/, $classes_before);
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.q"), '0', 'nothing is left');

# a long lease that was acked at once does not keep its segment either
$node->safe_psql('postgres', 'SELECT fill(240)');
$node->safe_psql('postgres', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 1000, '10 h')");
ok(await_empty(), 'a long lease, acked at once, keeps nothing');

# segments with a message stay, whatever else they had
for my $time (1, 2)
{
	$node->safe_psql('postgres', 'SELECT fill(240)');
	take_all($node, 'q', "count(CASE WHEN payload <> '7' THEN queue.ack(receipt) END)");
}
is($node->safe_psql('postgres', "SELECT count(*), min(payload::int), max(payload::int) FROM queues.q"), '2|7|7', 'survivors are there');
advance($node, '31 s');
ok(await($node, 'SELECT count(*) FROM queue.leases', expected => '0'), 'their leases ran out');
advance($node, '10 s');
is(attempts_of($node, 'q'), '7:2 7:2', 'and they come again');

# a reader holds a lock: it is passed over, and nobody queues behind it
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM queues.q');
$node->safe_psql('postgres', "SELECT queue.purge('q', '{\"states\": [\"ready\", \"leased\", \"failed\", \"delayed\"]}')");
$node->safe_psql('postgres', 'SELECT fill(160)');
is(take_all($node, 'q', 'count(queue.ack(receipt))'), '160', 'work goes on beside a reader');
$reader->query_safe('COMMIT');
$reader->quit;
ok(await_empty(), 'emptied when the reader has left');

$pin->query_safe('COMMIT');
$pin->quit;
check_ok($node);

# what is out of line counts for the size of a segment too
$node->safe_psql('postgres', q{
	SELECT queue.create('large', '{"segment_size": "1MB"}');
	CREATE TABLE body AS SELECT string_agg(md5(i::text), '') AS text FROM generate_series(1, 2000) i;
});
for my $turn (1 .. 8)
{
	$node->safe_psql('postgres', "SELECT queue.enqueue('large', to_jsonb(text || i)) FROM body, generate_series(1, 40) i");
	ok(await($node, "SELECT count(queue.ack(receipt)) >= 0 AND (SELECT count(*) FROM queues.large) = 0 FROM queue.dequeue('large', 100)"), "turn $turn: large messages are acked");
	ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'large' AND state = 'sealed'", expected => '0'), "turn $turn: their segments are emptied");
}
cmp_ok($node->safe_psql('postgres', "SELECT sum(pg_total_relation_size(segment)) FROM queue.segments WHERE queue = 'large'"), '<', 8 * 1024 * 1024,
	'20 MB of large messages leave no more than a few segments');

# a batch waits for a page that the worker is busy with, who looks around all the time here
$node->append_conf('postgresql.conf', "queue.worker_interval = '10ms'");
$node->reload;
$node->safe_psql('postgres', "SELECT queue.create('batches'); CREATE TABLE had (n int)");
$node->safe_psql('postgres', join('', map { q{
	SELECT count(queue.enqueue('batches', to_jsonb(repeat('x', 100)))) FROM generate_series(1, 2000) n;
	INSERT INTO had SELECT count(queue.ack(receipt)) FROM queue.dequeue('batches', 2000);
	SELECT count(queue.ack(receipt)) FROM queue.dequeue('batches', 2000);} } 1 .. 150));
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM had WHERE n < 2000'), '<=', 3, 'so hardly any is short of what is there');

# a crash after all that: what was emptied stays empty, what was there is there
$node->safe_psql('postgres', 'SELECT fill(300)');
$node->stop('immediate');
$node->start;
is(take_all($node, 'q', 'count(*), count(DISTINCT payload)'), '300|300', 'all of them after a crash');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|ERROR:/, 'no error in the log');
$node->stop;
done_testing();
