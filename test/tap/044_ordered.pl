# An ordered queue keeps the order of its keys when segments are full, emptied and used again, when
# the server crashes while messages wait for a retry, and without a worker.

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
	SELECT queue.create('line', '{"ordered": true, "backoff": "fixed", "backoff_base": "1 min", "backoff_jitter": 0,
		"max_attempts": 0, "segment_size": "64kB"}');
});
make_send_and_drain($node);
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

# What comes of each key, "a1..a9" if all of it is in order and complete.
sub drained
{
	my %came;

	foreach my $name (split /,/, query('CALL drain()') =~ s/[{}]//gr)
	{
		my ($of, $n) = $name =~ /^(\D)(\d+)$/;

		push @{ $came{$of} }, $n;
	}
	return join ' ', map {
		my @ns = @{ $came{$_} };
		my $whole = join(',', @ns) eq join(',', $ns[0] .. $ns[-1]);

		$whole ? "$_$ns[0]..$_$ns[-1]" : "$_ out of order: @ns";
	} sort keys %came;
}

# Fails the first message of a key; the others of the batch are not touched.
sub fail_first
{
	my ($of) = @_;

	return query("SELECT queue.nack(receipt, 'no') FROM queue.dequeue('line') WHERE key = '$of'");
}

# ---- many segments, a key that waits behind a retry, others that go on

query("SELECT send('a', 1, 1), send('b', 1, 1)");
is(fail_first('a'), 'retry', 'the first of a fails');
query("SELECT send('a', 2, 300), send('b', 2, 300), send('a', 301, 302)");
cmp_ok(query("SELECT count(*) FROM queue.segments WHERE queue = 'line'"), '>=', 4, 'the backlog has several segments');
is(drained(), 'b1..b300', 'b goes on in order, a waits');
is(drained(), '', 'and nothing else is there');
query("SELECT queue.clock_advance('61 s')");
is(drained(), 'a1..a302', 'then a comes, from its first on');
is(query('SELECT count(*) FROM queues.line'), '0', 'nothing is left');
ok($node->poll_query_until('postgres', "SELECT count(*) <= 3 FROM queue.segments WHERE queue = 'line' AND state NOT IN ('reserve')"),
	'the segments are emptied');

# ---- a crash while one waits for its retry

query("SELECT send('a', 1, 100), send('c', 1, 100)");
is(fail_first('a'), 'retry', 'the first of a fails');
$node->stop('immediate');
$node->start;
is(drained(), 'c1..c100', 'after a crash a still waits');
# The crash has set back the clock as well.
query("SELECT queue.clock_advance('5 min')");
is(drained(), 'a1..a100', 'and begins with the one that had failed');

# ---- without a worker: failures that are in memory, then a crash that forgets them

$node->append_conf('postgresql.conf', "max_worker_processes = 0");
$node->restart;
query("SELECT send('a', 1, 20), send('b', 1, 20)");
is(query("SELECT count(*) FROM queue.dequeue('line', 3, '10 s')"), '3', 'three are leased');
is(drained(), 'b1..b20', 'a is held');
query("SELECT queue.clock_advance('11 s')");
is(drained(), '', 'it failed, and waits');
query("SELECT queue.clock_advance('61 s')");
is(query("SELECT attempt FROM queue.dequeue('line', 1, '10 s')"), '2', 'the first comes again, from memory');
$node->stop('immediate');
$node->start;
is(drained(), 'a1..a20', 'after a crash all come in order');
$node->append_conf('postgresql.conf', "max_worker_processes = 8");
$node->restart;

# ---- delayed messages have no place in line

ok(await_worker($node, 'postgres', 1), 'the worker runs again');
query("SELECT queue.enqueue('line', '{\"n\": \"a9\"}', key => 'a', delay => '10 min')");
query("SELECT send('a', 1, 3), send('b', 1, 3)");
query("SELECT queue.clock_advance('10 min')");
like(query("SELECT string_agg(n, ' ' ORDER BY n) FROM (SELECT payload ->> 'n' AS n FROM queue.dequeue('line', 2, '1 h')) m"),
	qr/^a1 a[29]$/, 'a is held');
is(drained(), 'b1..b3', 'what fell due waits for its key');
query("SELECT queue.clock_advance('2 h')");
my $rest = '';
for (1 .. 50)
{
	$rest .= query('CALL drain()');
	last if query('SELECT count(*) FROM queues.line') eq '0';
	query("SELECT queue.clock_advance('61 s')");
	select undef, undef, undef, 0.1;
}
is(join(' ', grep { $_ ne 'a9' } $rest =~ /\w+/g), 'a1 a2 a3', 'a goes on in order');
like($rest, qr/a9/, 'and what fell due comes too');
is(query('SELECT count(*) FROM queues.line'), '0', 'nothing is left');
is(query('SELECT count(*) FROM queue.check()'), '0', 'the check finds nothing');

# ---- nor after a restart, when they lie in line

sub fill
{
	query("SELECT count(queue.enqueue('late', to_jsonb(repeat('x', 1000)), key => 'fill')) FROM generate_series(1, 60)");
}

query("SELECT queue.create('late', '{\"ordered\": true, \"max_attempts\": 0, \"segment_size\": \"64kB\"}')");
fill();
query("SELECT queue.enqueue('late', '\"other\"', key => 'b', delay => '10 min')");
fill();
query("SELECT queue.enqueue('late', '\"a1\"', key => 'a'), queue.enqueue('late', '\"a2\"', key => 'a')");
query("SELECT queue.enqueue('late', '\"late\"', key => 'a', delay => '10 min')");
query("SELECT count(queue.ack(receipt)) FROM queue.dequeue('late', 200, options => '{\"key\": \"fill\"}')");
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs after a restart');
query("SELECT queue.clock_advance('1 d')");
query("CREATE TABLE held AS SELECT payload #>> '{}' AS name, receipt FROM queue.dequeue('late', 10, '1 h')");
is(query("SELECT string_agg(name, ' ') FROM held"), 'other late a1 a2', 'those that were delayed are before the others');
query("SELECT queue.release(receipt, '1 min') FROM held WHERE name = 'a2'");
query("SELECT queue.release(receipt) FROM held WHERE name = 'late'");
query("SELECT queue.clock_advance('2 min')");
is(query("SELECT payload FROM queue.dequeue('late', 1)"), '"a1"', 'what comes back is behind what it was behind');

# ---- a blocked key is blocked after a crash, and in a copy

query("SELECT queue.alter('line', '{\"on_dead\": \"block\"}')");
query("SELECT send('x', 1, 3), send('y', 1, 3)");
query("SELECT queue.reject(receipt) FROM queue.dequeue('line')");
$node->stop('immediate');
$node->start;
is(drained(), 'y1..y3', 'after a crash the blocked key waits');
is(query("SELECT key FROM queue.blocked_keys('line')"), 'x', 'and is shown');
query("SELECT queue.unblock('line', 'x')");
is(drained(), 'x2..x3', 'until it is unblocked');
query("SELECT send('x', 1, 3)");
query("SELECT queue.set_key_state(receipt, '{\"n\": 1}'), queue.reject(receipt) FROM queue.dequeue('line')");

# ---- a queue with all its rows by dump and restore keeps its order

query("SELECT send('a', 1, 50), send('b', 1, 50)");
is(fail_first('a'), 'retry', 'the first of a fails');
my $dump = $node->basedir . '/dump';

$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
query('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'restored');
$node->safe_psql('copy', "SELECT queue.clock_advance('61 s')");
my $came = $node->safe_psql('copy', 'CALL drain()') =~ s/[{}]//gr;

is(join(',', grep { /^a/ } split /,/, $came), join(',', map { "a$_" } 1 .. 50), 'the copy has a in order');
is(join(',', grep { /^x/ } split /,/, $came), '', 'but not what is blocked');
is($node->safe_psql('copy', "SELECT queue.unblock('line', 'x')"), 't', 'which is blocked in the copy');
is($node->safe_psql('copy', q{SELECT queue.get_key_state(receipt), queue.release(receipt) FROM queue.dequeue('line')}), '{"n": 1}|', 'and has its state');
is($node->safe_psql('copy', 'CALL drain()'), '{x2,x3}', 'until somebody says so');
is(join(',', grep { /^b/ } split /,/, $came), join(',', map { "b$_" } 1 .. 50), 'and b');

$node->stop;
done_testing();
