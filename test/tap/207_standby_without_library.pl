# A standby that has not preloaded the library recovers all the same; its functions say what to do, after its
# promotion too. Preloaded at last, it has every message.

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
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$standby->start;

# the whole life of a queue reaches it, from CREATE EXTENSION on
create_ledger($node);
my $traffic = start_traffic($node);
ok(await($node, 'SELECT count(*) > 500 FROM worked', limit => 120), 'work is done');
# full segments, emptied in place
ok(await($node, "SELECT max(number) > 2 FROM queue.segments WHERE queue = 'q'"), 'segments go round');
my $prepared = take($node, 'q');
$node->safe_psql('postgres', "BEGIN; INSERT INTO worked SELECT payload::bigint FROM queue.pop('q'); PREPARE TRANSACTION 'pop'");
$node->stop('immediate');
finish_traffic($traffic);
$node->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));

my @refused = ("SELECT * FROM queue.dequeue('q')", "SELECT queue.enqueue('q', '1')", "SELECT * FROM queues.q", "INSERT INTO queues.q (payload) VALUES ('1')",
	"DELETE FROM queues.q", "SELECT queue.ack(gen_random_uuid())", "SELECT * FROM queue.stats", "SELECT * FROM queue.segments", "SELECT * FROM queue.leases",
	"SELECT * FROM queue.health()", "SELECT * FROM queue.check()", "SELECT queue.create('new')", "SELECT queue.drop('q', true)", "CALL queue.wait('q', '1 s')");

sub refused_ok
{
	my ($name) = @_;

	foreach my $query (@refused)
	{
		my ($status, $stdout, $stderr) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$query");

		# a standby may say first that it is one
		like($stderr, $name eq 'standby' ? qr/ERROR:\s+(55000|25006)/ : qr/ERROR:\s+55000/, "$name: $query is refused");
		like($stderr, qr/HINT:.*shared_preload_libraries.*restart/s, "$name: $query: a hint tells how to mend it") if $stderr =~ /55000/;
	}
	is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'queue %'"), '0', "$name: no worker");
}

refused_ok('standby');
is(worked($standby), worked($node), 'standby: its rows can be read');
$node->stop('immediate');
$standby->promote;
refused_ok('promoted');
$standby->safe_psql('postgres', "COMMIT PREPARED 'pop'");
fails($standby, 'CREATE EXTENSION queue', '42710', 'promoted: the extension is there');

$standby->append_conf('postgresql.conf', "shared_preload_libraries = 'queue'");
$standby->restart;
ledger_ok($standby, 'preloaded');
ok(await_worker($standby, 'postgres', 1, 10), 'preloaded: the worker comes');
fails($standby, "SELECT queue.ack('$prepared')", 'QU001', 'preloaded: a receipt of the primary is void');
drain_ok($standby, 'preloaded');
check_ok($standby);
$standby->stop;
done_testing();
