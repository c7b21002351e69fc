# Listeners are told by the worker, soon after a commit and when a delayed message falls due.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;
use Time::HiRes;

my $node = new_node('main');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q');
	SELECT queue.create('Quiet', '{"notify": false}');
	CREATE TABLE mine (n int);
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');
my $session = $node->background_psql('postgres');
$session->query_safe('LISTEN queue_q');
$session->query_safe('LISTEN "queue_Quiet"');

# How many notifications of the channel arrive before a limit; stops at the wanted one.
sub heard
{
	my ($channel, $wanted, $limit) = @_;
	my $until = time + $limit;
	my $count = 0;

	do
	{
		my $output = $session->query('SELECT 1');
		$count += () = $output =~ /Asynchronous notification "\Q$channel\E" with payload/g;
		Time::HiRes::sleep(0.02);
	} while ($count < $wanted && time < $until);
	return $count;
}

is(heard('queue_q', 1, 1), 0, 'nothing without a message');
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '1')");
ok(heard('queue_q', 1, 20) >= 1, 'an enqueue is announced');
$node->safe_psql('postgres', "SELECT queue.ack(receipt) FROM queue.dequeue('q')");
heard('queue_q', 100, 1);
$node->safe_psql('postgres', "BEGIN; SELECT queue.enqueue('q', '2'); ROLLBACK");
is(heard('queue_q', 1, 1), 0, 'a rolled back one is not');
my $count = $node->safe_psql('postgres', q{SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 1000) n});
ok(heard('queue_q', 1, 20) >= 1, 'a large transaction is');
cmp_ok(heard('queue_q', 100, 1), '<', 10, 'not once a message');
$node->safe_psql('postgres', "INSERT INTO queues.q (payload) VALUES ('3')");
ok(heard('queue_q', 1, 20) >= 1, 'an INSERT is announced');
$node->safe_psql('postgres', 'COPY (SELECT 1) TO STDOUT');
heard('queue_q', 100, 1);

# empty it, then a message that is due in an hour
$node->safe_psql('postgres', "SELECT queue.purge('q')");
heard('queue_q', 100, 1);
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '4', delay => '1 h')");
is(heard('queue_q', 1, 1), 0, 'a delayed message is not announced yet');
advance($node, '61 min');
ok(heard('queue_q', 1, 20) >= 1, 'it is when it falls due');
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q')"), '4', 'and is there');
heard('queue_q', 100, 1);
advance($node, '31 s');
ok(heard('queue_q', 1, 20) >= 1, 'a lease that ran out is announced');

$node->safe_psql('postgres', "SELECT queue.enqueue('Quiet', '1')");
is(heard('queue_Quiet', 1, 1), 0, 'a queue without notify is silent');
$node->safe_psql('postgres', "SELECT queue.alter('Quiet', '{\"notify\": true}'); SELECT queue.enqueue('Quiet', '2')");
ok(heard('queue_Quiet', 1, 20) >= 1, 'until it is altered');

# a producer's transaction never notifies: LISTEN in it would show its own pid
$session->quit;
my $producer = $node->background_psql('postgres');
$producer->query_safe('LISTEN queue_q');
my $pid = $producer->query_safe('SELECT pg_backend_pid()');
my $output = '';
$output .= $producer->query_safe("SELECT queue.enqueue('q', '5')");
for (my $until = time + 20; time < $until && $output !~ /server process with PID/;)
{
	$output .= $producer->query('SELECT 1');
}
my ($sender) = $output =~ /server process with PID (\d+)/;
is($sender, worker_pid($node), 'the worker is the one who notifies');
$producer->quit;
check_ok($node);
$node->stop;
done_testing();
