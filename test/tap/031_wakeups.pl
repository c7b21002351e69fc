# Sleepers are woken by what happens, not by the worker's tick: its interval is an hour here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.max_wait = '600s'\nqueue.worker_interval = '600s'\nqueue.recheck_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', "CREATE EXTENSION queue; SELECT queue.create('q', '{\"segment_size\": \"64kB\"}'); CREATE TABLE got (n int, acked text)");
my $sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'";
my $work = "INSERT INTO got SELECT payload::int, queue.ack(receipt)::text FROM queue.dequeue('q', wait => '600 s')";

# Starts a session on something that waits; the caller finishes it.
sub start_waiting
{
	my ($sql, $before) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query($before) if defined $before;
	$session->query_until(qr/waits/, "\\echo waits\n$sql;\n");
	return $session;
}

sub got
{
	my ($n, $name) = @_;

	ok(await($node, "SELECT count(*) FROM got WHERE n = $n", expected => '1', limit => 30), $name);
}

# A page that the worker is at is passed over, so once may not be enough.
sub drain
{
	ok(await($node, "SELECT count(queue.ack(receipt)) >= 0 AND (SELECT count(*) FROM queues.q) = 0 FROM queue.dequeue('q', 1000)"), 'all is acked');
}

# a message that takes another one's place
my $id = $node->safe_psql('postgres', "SELECT queue.enqueue('q', '1', delay => '1 h')");
my $session = start_waiting($work);
ok(await($node, $sleeping, expected => '1'), 'one waits');
$node->safe_psql('postgres', "BEGIN; SELECT queue.cancel('q', $id); SELECT queue.enqueue('q', '2'); COMMIT");
got(2, 'a message that replaces a cancelled one wakes');
$session->quit;

# what a prepared transaction brings: whoever sleeps looks for it by himself
$session = start_waiting($work);
ok(await($node, $sleeping, expected => '1'), 'one waits again');
$node->safe_psql('postgres', "BEGIN; SELECT queue.enqueue('q', '3'); PREPARE TRANSACTION 'three'");
$node->safe_psql('postgres', "COMMIT PREPARED 'three'");
got(3, 'COMMIT PREPARED is seen by one who slept');
$session->quit;

# one whose snapshot is too old gives the signal on
my $old = start_waiting("SELECT * FROM queue.dequeue('q', wait => '600 s')", 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queues.q');
ok(await($node, $sleeping, expected => '1'), 'one with an old snapshot waits');
$session = start_waiting($work);
ok(await($node, $sleeping, expected => '2'), 'and one without, behind him');
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '4')");
got(4, 'who can see the message gets it');
$session->quit;
# and again, now that he sleeps before the other
$session = start_waiting($work);
ok(await($node, $sleeping, expected => '2'), 'the next one waits behind him');
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '41')");
got(41, 'the second signal is given on too');
$session->quit;
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend'");
eval { $old->quit };

# a purge that is rolled back
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '5')");
my $purge = $node->background_psql('postgres');
$purge->query_safe("BEGIN; SELECT queue.purge('q')");
$session = start_waiting($work);
ok(await($node, $sleeping, expected => '1'), 'one waits for a queue that is being purged');
$purge->query_safe('ROLLBACK');
got(5, 'what was not purged after all is delivered');
$purge->quit;
$session->quit;

# a page of a savepoint that was rolled back, in a segment that had another life since
$node->append_conf('postgresql.conf', "queue.worker_interval = '50ms'\nqueue.recheck_interval = '600s'");
$node->reload;
ok(await($node, 'SHOW queue.recheck_interval', expected => '10min'), 'settings are read');
my $nested = $node->background_psql('postgres');
my $active = "SELECT number FROM queue.segments WHERE queue = 'q' AND state = 'active'";
$node->safe_psql('postgres', q{
	CREATE FUNCTION turn() RETURNS int LANGUAGE sql AS $$
		SELECT count(queue.enqueue('q', to_jsonb(repeat(md5(i::text), 40)))) FROM generate_series(1, 60) i;
		SELECT number FROM queue.segments WHERE queue = 'q' AND state = 'active' $$;
	SELECT turn(); SELECT turn()});
drain();
my $number = $node->safe_psql('postgres', $active);
$nested->query_safe("BEGIN; SAVEPOINT s; SELECT queue.enqueue('q', '0')");
$nested->query_safe('ROLLBACK TO s');
my ($left, $came_back) = (0, 0);
for my $turn (1 .. 200)
{
	my $now = $node->safe_psql('postgres', 'SELECT turn()');

	drain();
	await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0', limit => 30);
	$now = $node->safe_psql('postgres', $active);
	$left ||= $now ne $number;
	$came_back = $left && $now eq $number;
	last if $came_back;
}
ok($came_back, 'the segment is active again');
$nested->query_safe("SELECT queue.enqueue('q', '6')");
$nested->query_safe('COMMIT');
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q')"), '6', 'its message is there at once');
$nested->quit;
check_ok($node);
$node->stop;
done_testing();
