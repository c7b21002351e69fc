# A synchronous standby takes over from a primary that went away under load: every commit that a client saw
# confirmed is there, and nothing that was acked returns.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $node = new_node('node_0', allows_streaming => 1, conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);

# each takes over from the one before
my $next = 1;
foreach my $how (qw(immediate kill9 immediate))
{
	my $standby = PostgreSQL::Test::Cluster->new("node_$next");
	my $name = "$next, $how";

	$node->backup("base_$next");
	$standby->init_from_backup($node, "base_$next", has_streaming => 1);
	$standby->start;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'node_$next'");
	$node->reload;
	ok(await($node, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", expected => '1'), "$name: the standby is synchronous");

	my $before = worked($node);
	my $traffic = start_traffic($node, produce => 3, consume => 3, options => '-c synchronous_commit=' . ($next == 1 ? 'on' : 'remote_apply'));
	ok(await($node, "SELECT count(*) > $before + 500 FROM worked", limit => 120), "$name: work is done");
	my $seen = $node->safe_psql('postgres', 'SELECT max(id) FROM sent');
	$how eq 'immediate' ? $node->stop('immediate') : $node->kill9;
	finish_traffic($traffic);
	$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$standby->promote;
	$standby->reload;

	confirmed_ok($standby, $traffic, 100);
	ledger_ok($standby, $name);
	my $last = $standby->safe_psql('postgres', 'SELECT max(id) FROM sent');
	cmp_ok($last, '>=', $seen, "$name: what somebody saw is there");
	cmp_ok($standby->safe_psql('postgres', "WITH m AS (SELECT queue.enqueue('q', to_jsonb(-$next)) AS id) INSERT INTO sent SELECT -$next, id FROM m RETURNING id"),
		'>', $last, "$name: ids go on");
	check_ok($standby);
	$node = $standby;
	$next++;
}
drain_ok($node, 'at the end');
check_ok($node);
$node->stop;
done_testing();
