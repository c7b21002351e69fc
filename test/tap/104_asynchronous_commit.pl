# Asynchronous commit and a crash: commits that were not flushed are undone whole, message and business row both
# or neither, ack and the work both or neither. What waited for its flush is there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

# Nobody writes WAL out but who must, so that there is something to lose; the WAL writer is stopped for that.
my $node = new_node('main', conf => "synchronous_commit = off\nbgwriter_lru_maxpages = 0\nautovacuum = off\nqueue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->safe_psql('postgres', 'CREATE TABLE flushed (n int)');

# Emptying a small segment flushes too; a large one is not emptied here.
foreach my $round ([ 'immediate', '64kB' ], [ 'kill9', '64kB' ], [ 'kill9', '64MB' ])
{
	my ($how, $size) = @$round;
	my $name = "$how, segments of $size";
	my $undone = 0;

	$node->safe_psql('postgres', qq{SET synchronous_commit = on; SELECT queue.alter('q', '{"segment_size": "$size"}')});
	my $before = worked($node);
	my $traffic = start_traffic($node);
	ok(await($node, "SELECT count(*) > $before + 300 FROM worked", limit => 120), "$name: work is done");
	my $flushed = worked($node);
	$node->safe_psql('postgres', 'SET synchronous_commit = on; INSERT INTO flushed VALUES (1)');
	my $wal_writer = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	kill 'STOP', $wal_writer;
	ok(await($node, "SELECT count(*) > $flushed + 300 FROM worked"), "$name: more work is done");
	# the postmaster ends by itself who does not heed it
	$how eq 'immediate' ? $node->stop('immediate') : $node->kill9;
	kill 'KILL', $wal_writer if $how eq 'kill9';
	finish_traffic($traffic);
	restart_until_up($node);

	cmp_ok(worked($node), '>=', $flushed, "$name: what was flushed is there");
	ledger_ok($node, $name);
	check_ok($node);
	foreach my $role (qw(produce consume))
	{
		my ($all, $missing) = confirmed_and_missing($node, $traffic, $role);

		note("$name, $role: $missing of $all confirmed transactions are undone");
		$undone += $missing;
	}
	cmp_ok($undone, '>', 0, "$name: commits are undone") if $size eq '64MB';
}
drain_ok($node, 'at the end');
check_ok($node);
$node->stop;
done_testing();
