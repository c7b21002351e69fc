# queue.segments says why a full segment is kept and who is in the way, queue.health() likewise; to others no more
# than they may see.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_prepared_transactions = 10\nqueue.worker_interval = '50ms'\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"segment_size": "64kB"}');
	CREATE ROLE stranger;
	CREATE ROLE reader;
	GRANT SELECT ON queues.q TO reader;
	SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat('x', 1000)))) FROM generate_series(1, 30) n;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# Segments are full when the next one is there, and used from the next message on.
ok(await($node, "SELECT count(*) > 1 FROM queue.segments WHERE queue = 'q'"), 'there is another segment');
$node->safe_psql('postgres', "SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat('x', 1000)))) FROM generate_series(31, 200) n");
ok(await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = 'q' AND state = 'sealed'"), 'and one is full');

# What queue.segments says of the first, in a role.
my $why = "SELECT kept_because || ': ' || coalesce(kept_by, '') FROM queue.segments WHERE queue = 'q' AND number = 1";

sub says
{
	my ($expected, $name) = @_;

	ok(await($node, $why, expected => $expected), $name);
	return;
}

sub health_says
{
	my ($role, $check) = @_;

	return $node->safe_psql('postgres', "SET ROLE $role; SELECT status || '|' || detail FROM queue.health() WHERE \"check\" = '$check'");
}

says('messages are left in it: ', 'messages that nobody holds');
$node->safe_psql('postgres', "CREATE TABLE held AS SELECT receipt, payload FROM queue.dequeue('q', 1000); SELECT queue.ack(receipt) FROM held WHERE payload <> '1'");
like($node->safe_psql('postgres', $why), qr/^its messages are leased: leases of pid \d+$/, 'one that is leased');
unlike($node->safe_psql('postgres', "SET ROLE stranger; $why"), qr/./, 'a stranger is told nothing');
$node->safe_psql('postgres', "SELECT queue.release(receipt) FROM held WHERE payload = '1'");
says('messages are left in it: ', 'and is given back');

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $idle = "pid $pid (idle in transaction)";
$session->query_safe('BEGIN');
$session->query_safe("SELECT queue.ack(receipt) FROM queue.dequeue('q')");
says("transactions on it are open: $idle", 'an ack in an open transaction');
is($node->safe_psql('postgres', "SET ROLE reader; $why"), "transactions on it are open: pid $pid", 'without rights on the session no state');
like(health_says('postgres', 'horizon'), qr/^ok\|Held by pid $pid \(idle.*; it has locks on segments \(1\), which stay until it ends\.$/, 'health: its locks count');
$session->query_safe("PREPARE TRANSACTION 'p'");
says('transactions on it are open: prepared transaction "p"', 'an ack that is prepared');
like(health_says('stranger', 'horizon'), qr/^ok\|Held by prepared transaction "p".*; it has locks on segments \(1\)/, 'health: so do those of a prepared one');
$node->stop('immediate');
$node->start;
says('transactions on it are open: prepared transaction "p"', 'the same after a crash');

$session->quit;
$session = $node->background_psql('postgres');
$pid = $session->query_safe('SELECT pg_backend_pid()');
$idle = "pid $pid (idle in transaction)";
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->query_safe('SELECT count(*) FROM queues.q');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
says("somebody holds a lock on it: $idle", 'a reader of the view');
is(health_says('postgres', 'stuck_segments'), "warn|Segments without messages that could not be emptied when last tried. In the way: $idle.", 'health: who keeps segments');
is(health_says('reader', 'stuck_segments'), "warn|Segments without messages that could not be emptied when last tried. In the way: pid $pid.", 'health: without state');
is(health_says('stranger', 'stuck_segments'), 'warn|Segments without messages that could not be emptied when last tried.', 'health: a stranger hears no more than that');
$session->query_safe('COMMIT');
$session->quit;
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), 'then it is emptied');
is(health_says('stranger', 'stuck_segments'), 'ok|Segments without messages that could not be emptied when last tried.', 'health: nobody');
check_ok($node);
$node->stop;
done_testing();
