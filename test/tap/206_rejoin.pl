# An old primary comes back by pg_rewind, follows, is promoted again; the other one comes back by a new backup.
# Queues follow them there and back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $conf = "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0\nwal_keep_size = '1GB'\nwal_log_hints = on";
my $one = new_node('one', allows_streaming => 1, conf => $conf);
$one->start;
create_ledger($one);
$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('two');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->start;

# Let this primary work until so much more is done.
sub work
{
	my ($node, $name) = @_;
	my $before = worked($node);
	my $traffic = start_traffic($node);

	ok(await($node, "SELECT count(*) > $before + 300 FROM worked", limit => 120), "$name: work is done");
	return $traffic;
}

# A standby shows what its primary has.
sub follows_ok
{
	my ($primary, $standby, $name) = @_;
	my $facts = 'SELECT count(*), sum(id) FROM queues.q';

	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is($standby->safe_psql('postgres', $facts), $primary->safe_psql('postgres', $facts), "$name: the standby shows what the primary has");
	ledger_ok($standby, $name);
}

# one goes on alone for a while, so the two differ
my $traffic = work($one, 'together');
$two->stop;
ok(await($one, 'SELECT count(*) > 800 FROM worked'), 'the first goes on alone');
$one->stop('immediate');
finish_traffic($traffic);
$two->start;
$two->promote;
$traffic = work($two, 'promoted');

# pg_rewind recovers the crashed one in single-user mode first. Up to 15 it
# learns from a checkpoint that the other has been promoted.
$two->safe_psql('postgres', 'CHECKPOINT');
my $own_conf = $one->data_dir . '/postgresql.conf';
copy($own_conf, $one->basedir . '/postgresql.conf.own');
command_ok([ 'pg_rewind', '--source-server', $two->connstr('postgres'), '--target-pgdata', $one->data_dir, '--no-sync' ], 'pg_rewind');
copy($one->basedir . '/postgresql.conf.own', $own_conf);
$one->enable_streaming($two);
$one->set_standby_mode;
$one->start;
$two->stop('immediate');
finish_traffic($traffic);
$two->start;
follows_ok($two, $one, 'rewound');
is($one->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '0', 'rewound: no leases');
fails($one, "SELECT * FROM queue.dequeue('q')", '25006', 'rewound: it is a standby');
$traffic = work($two, 'after that');

# and back
my $held = take($two, 'q');
$two->stop('immediate');
finish_traffic($traffic);
$one->promote;
fails($one, "SELECT queue.ack('$held')", 'QU001', 'promoted back: a receipt of the other is void');
ledger_ok($one, 'promoted back');
check_ok($one);
ok(await_worker($one, 'postgres', 1, 10), 'promoted back: the worker comes');
$traffic = work($one, 'promoted back');

# the other one from a new backup, taken under load
$one->backup('again');
my $three = PostgreSQL::Test::Cluster->new('three');
$three->init_from_backup($one, 'again', has_streaming => 1);
$three->start;
ok(await($one, 'SELECT count(*) = 1 FROM pg_stat_replication'), 'a new standby follows');
$one->stop('immediate');
finish_traffic($traffic);
$one->start;
follows_ok($one, $three, 'a new standby');
$one->stop;
$three->promote;
drain_ok($three, 'promoted at last');
is($three->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT id) FROM sent'), '0', 'no id was given twice');
check_ok($three);
$three->stop;
done_testing();
