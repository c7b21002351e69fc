# A backend that dies by a signal: the server restarts by itself, and the queue is what the tables say.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => 'restart_after_crash = on');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none"}');
	SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 10) n;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');
my $receipt = take($node, 'q');

foreach my $victim ('a consumer with an open ack', 'the worker', 'the launcher', 'a waiting consumer')
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query('SELECT pg_backend_pid()');
	my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

	if ($victim =~ /open ack/)
	{
		$session->query('BEGIN');
		$session->query("SELECT queue.ack(receipt) FROM queue.dequeue('q', 2)");
		$session->query(q{SELECT queue.enqueue('q', '"never"')});
	}
	elsif ($victim =~ /waiting/)
	{
		$node->safe_psql('postgres', "SELECT queue.create('none')");
		$session->query_until(qr/go/, "\\echo go\nSELECT * FROM queue.dequeue('none', wait => '5 s');\n");
		ok(await($node, "SELECT wait_event = 'QueueDequeue' OR wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid"), 'it waits');
	}
	else
	{
		$pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue ' || '" . ($victim =~ /(\w+)$/)[0] . "'");
	}
	kill 'KILL', $pid;
	ok(await($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), "$victim was killed; the server is back");
	eval { $session->quit };
	ok(await($node, 'SELECT NOT pg_is_in_recovery()'), "$victim: recovered");
	is(values_of($node, 'q'), '1 2 3 4 5 6 7 8 9 10', "$victim: all messages are there, and no other");
	ok(await_worker($node, 'postgres', 1, 10), "$victim: the worker is back");
	fails($node, "SELECT queue.ack('$receipt')", 'QU001', "$victim: older leases are void");
	$receipt = take($node, 'q');
	isnt($receipt, '', "$victim: messages are delivered");
	check_ok($node);
}
is(attempts_of($node, 'q'), '10:1 2:1 3:1 4:1 5:1 6:1 7:1 8:1 9:1', 'a crash counts no failure');
$node->stop;
done_testing();
