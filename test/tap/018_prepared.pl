# Two-phase commit: what a prepared transaction settled is counted when it has ended, and its segment is emptied.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_prepared_transactions = 10\nqueue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "segment_size": "64kB"}');
	SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 20) n;
});
my $totals = "SELECT total_acked, total_failed, total_dead, total_cancelled, ready + leased + failed FROM queue.stats WHERE queue = 'q'";
ok(await($node, "SELECT exact FROM queue.stats WHERE queue = 'q'"), 'counted');

# Let one transaction settle what was leased before, prepare it, and end it.
sub prepared
{
	my ($call, $end) = @_;
	my $receipts = "(SELECT array_agg(receipt) FROM held)";

	$call =~ s/RECEIPTS/$receipts/;
	$node->safe_psql('postgres', "CREATE TABLE held AS SELECT receipt FROM queue.dequeue('q', 4)");
	$node->safe_psql('postgres', "BEGIN; $call; PREPARE TRANSACTION 'p'");
	is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT status, \' \') FROM queue.try_ack((SELECT array_agg(receipt) FROM held))'), 'lost', "$call, prepared: nobody else can ack");
	$node->safe_psql('postgres', "$end PREPARED 'p'");
	my $status = $node->safe_psql('postgres', 'SELECT string_agg(DISTINCT status, \' \') FROM queue.try_ack((SELECT array_agg(receipt) FROM held))');
	$node->safe_psql('postgres', 'DROP TABLE held');
	return $status;
}

is(prepared('SELECT queue.ack_batch(RECEIPTS)', 'COMMIT'), 'already_acked', 'an ack that was committed is known');
ok(await($node, $totals, expected => '4|0|0|0|16'), 'and counted');
is(prepared('SELECT queue.ack_batch(RECEIPTS)', 'ROLLBACK'), 'acked', 'one that was rolled back gives the lease back');
ok(await($node, $totals, expected => '8|0|0|0|12'), 'counted once');
is(prepared("SELECT queue.nack_batch(RECEIPTS, 'broken')", 'COMMIT'), 'lost', 'what was nacked is not acked');
is(prepared("SELECT queue.reject(r) FROM unnest(RECEIPTS) r", 'COMMIT'), 'lost', 'nor what was rejected');
ok(await($node, "SELECT total_dead FROM queue.stats WHERE queue = 'q'", expected => '4'), 'dead letters are counted');
$node->safe_psql('postgres', "BEGIN; SELECT queue.purge('q'); PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
ok(await($node, "SELECT ready + leased + failed FROM queue.stats WHERE queue = 'q'", expected => '0'), 'a purge too, in the end');
check_ok($node);

# Nobody need have come along since it has ended: that is not a fault.
$node->safe_psql('postgres', "SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 4) n");
foreach my $end (qw(COMMIT ROLLBACK))
{
	is($node->safe_psql('postgres', qq{
		BEGIN;
		SELECT FROM queue.dequeue('q', 2) m, queue.ack(m.receipt);
		PREPARE TRANSACTION 'p';
		$end PREPARED 'p';
		SELECT * FROM queue.check();
	}) =~ s/^\s+//r, '', "$end PREPARED: queue.check() finds nothing at once");
}
is($node->safe_psql('postgres', "SELECT queue.purge('q', '{\"states\": [\"ready\", \"leased\", \"failed\"]}')"), '2', 'two are left');

# A segment whose messages were all acked so is emptied, and counts stay what they are.
$node->safe_psql('postgres', q{
	SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 40)))) FROM generate_series(1, 100) n;
});
ok(await($node, "SELECT count(*) > 1 FROM queue.segments WHERE queue = 'q'"), 'a reserve is there');
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '0')");
$node->safe_psql('postgres', "BEGIN; SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 1000); PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), 'the segment is emptied');
ok(await($node, "SELECT ready + leased + failed FROM queue.stats WHERE queue = 'q'", expected => '0'), 'nothing is left');
check_ok($node);
$node->stop;
done_testing();
