# Many sleepers: each message wakes one, a sleeper that goes away passes its signal on, and who waits by CALL holds no snapshot.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.max_wait = '60s'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q');
	CREATE TABLE got (n int, who int);
});
my $sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'";

# Starts a session on something that waits; the caller finishes it.
sub start_waiting
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/waits/, "\\echo waits\n$sql;\n");
	return $session;
}

my $work = "INSERT INTO got SELECT payload::int, pg_backend_pid() FROM queue.dequeue('q', wait => '60 s')";
my @sessions = map { start_waiting($work) } 1 .. 10;
ok(await($node, $sleeping, expected => '10'), 'ten wait');

# one message, one of them
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '1')");
ok(await($node, 'SELECT count(*) FROM got', expected => '1'), 'one message wakes one');
ok(await($node, $sleeping, expected => '9'), 'the others wait on');

# a sleeper is cancelled just as a message comes: another one gets it
for my $n (2 .. 4)
{
	$node->safe_psql('postgres', qq{
		SELECT queue.enqueue('q', '$n');
		SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend' LIMIT 1;
	});
	ok(await($node, "SELECT count(*) FROM got WHERE n = $n", expected => '1', limit => 20), "message $n is had by one who stayed");
}

# as many messages as sleepers, in one transaction
my $left = $node->safe_psql('postgres', $sleeping);
$node->safe_psql('postgres', "SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(101, 100 + $left) n");
ok(await($node, 'SELECT count(*) FROM got WHERE n > 100', expected => $left, limit => 20), "$left messages for $left sleepers: each has one");
is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT n) FROM got'), '0', 'no message twice');
is($node->safe_psql('postgres', $sleeping), '0', 'nobody is left');
$_->quit foreach @sessions;

# CALL queue.wait(): no snapshot, no transaction of its own age
$node->safe_psql('postgres', "SELECT queue.create('idle')");
my $waiter = start_waiting("CALL queue.wait('idle', '60 s')");
ok(await($node, $sleeping, expected => '1'), 'one waits by CALL');
is($node->safe_psql('postgres', "SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend'"),
	't', 'it holds no snapshot');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE wait_event_type = 'Extension' AND a.backend_type = 'client backend' AND relation IS NOT NULL"),
	'0', 'and no lock on a relation');
$node->safe_psql('postgres', "SELECT queue.enqueue('idle', '1', delay => '30 s')");
advance($node, '31 s');
ok(await($node, $sleeping, expected => '0', limit => 30), 'it is woken when a message falls due');
$waiter->quit;

# the worker between its rounds holds none either
ok(await($node, "SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE backend_type = 'queue worker'"), 'nor does the worker while it sleeps');

# whoever waits is not in the way of a drop for longer than it takes to wake it
my $dropped = start_waiting("CALL queue.wait('idle', '60 s')") if $node->safe_psql('postgres', "SELECT queue.purge('idle')") eq '1';
$node->safe_psql('postgres', "SELECT queue.drop('idle', true)");
ok(await($node, $sleeping, expected => '0', limit => 30), 'a drop wakes all');
$dropped->quit if $dropped;
check_ok($node);
$node->stop;
done_testing();
