# An asynchronous standby takes over from a primary that was killed under load: what did not reach it is lost
# together with its business rows, what reached it is complete, and ids go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $node = new_node('primary', allows_streaming => 1, conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->backup('base');
foreach my $how (qw(immediate kill9))
{
	my $standby = PostgreSQL::Test::Cluster->new("standby_$how");

	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'hot_standby_feedback = on');
	$standby->start;
	my $traffic = start_traffic($node);
	ok(await($node, 'SELECT count(*) > 300 FROM worked', limit => 120), "$how: work is done");
	ok(await($standby, 'SELECT count(*) > 100 FROM worked', limit => 120), "$how: the standby follows");
	# what these hold is free after the failover
	my $held = $node->safe_psql('postgres', "SELECT string_agg(receipt::text, ',') FROM queue.dequeue('q', 2, '1 h', '5 s')");

	# one of them is away for the end, so that something is lost for certain
	$standby->stop if $how eq 'immediate';
	my $reached = worked($node);
	ok(await($node, "SELECT count(*) > $reached + 100 FROM worked"), "$how: work goes on");
	$how eq 'immediate' ? $node->stop('immediate') : $node->kill9;
	finish_traffic($traffic);
	$standby->start if $how eq 'immediate';
	$standby->promote;

	foreach my $receipt (split(/,/, $held))
	{
		fails($standby, "SELECT queue.ack('$receipt')", 'QU001', "$how: a receipt of the primary is void");
	}
	ledger_ok($standby, $how);
	cmp_ok(worked($standby), '<=', $reached, "$how: what came later is lost") if $how eq 'immediate';
	check_ok($standby);
	ok(await_worker($standby, 'postgres', 1, 10), "$how: the worker comes");
	my $last = $standby->safe_psql('postgres', 'SELECT max(id) FROM sent');
	$traffic = start_traffic($standby, seconds => 2);
	finish_traffic($traffic);
	confirmed_ok($standby, $traffic, 10);
	cmp_ok($standby->safe_psql('postgres', "SELECT min(id) FROM sent WHERE n >= $traffic->{base}"), '>', $last, "$how: new ids are above all old ones");
	drain_ok($standby, $how);
	ok(await($standby, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), "$how: it empties segments");
	check_ok($standby);
	$standby->stop;
	restart_until_up($node);
}
$node->stop;
done_testing();
