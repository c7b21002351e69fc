# Recovery to a point in the middle of a queue's life: its messages are those of the business rows of that
# moment, leases are void, ids that are there are not given again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $node = new_node('primary', has_archiving => 1, allows_streaming => 1, conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->safe_psql('postgres', 'CREATE TABLE marks (mark text)');
$node->backup('base');

# A transaction whose id, and a point whose name, are in the middle of traffic that goes on. One message is held
# and one is prepared at each of them.
sub mark
{
	my ($mark) = @_;
	my $xid = $node->safe_psql('postgres', "BEGIN; SELECT queue.dequeue('q', 1, '1 h', '5 s'); INSERT INTO marks VALUES ('$mark') RETURNING txid_current() % 4294967296; COMMIT");

	return ($xid =~ /(\d+)$/)[0];
}

my $traffic = start_traffic($node);
ok(await($node, 'SELECT count(*) > 200 FROM worked'), 'work is done');
my $xid = mark('xid');
ok(await($node, 'SELECT count(*) > 500 FROM worked'), 'and more');
my $held = take($node, 'q');
$node->safe_psql('postgres', q{BEGIN; WITH m AS (SELECT queue.enqueue('q', '-1') AS id) INSERT INTO sent SELECT -1, id FROM m; PREPARE TRANSACTION 'enqueue'});
mark('name');
$node->safe_psql('postgres', "SELECT pg_create_restore_point('middle')");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'enqueue'");
my $at_name = worked($node);
ok(await($node, "SELECT count(*) > $at_name + 300 FROM worked"), 'and more after it');
mark('end');
$node->safe_psql('postgres', "SELECT queue.drop('q', true)");
my $walfile = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
finish_traffic($traffic);
ok(await($node, "SELECT last_archived_wal >= '$walfile' FROM pg_stat_archiver"), 'all is archived');
$node->stop;

my %target = (name => "recovery_target_name = 'middle'", xid => "recovery_target_xid = '$xid'");
foreach my $by (sort keys %target)
{
	my $restored = PostgreSQL::Test::Cluster->new("by_$by");
	my %marks = (name => 'name xid', xid => 'xid');

	$restored->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
	$restored->append_conf('postgresql.conf', "$target{$by}\nrecovery_target_action = promote\narchive_mode = off");
	$restored->start;
	ok(await($restored, 'SELECT NOT pg_is_in_recovery()'), "by $by: recovered");
	is($restored->safe_psql('postgres', "SELECT string_agg(mark, ' ' ORDER BY mark) FROM marks"), $marks{$by}, "by $by: to that point");
	is($restored->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '0', "by $by: nobody holds anything");
	fails($restored, "SELECT queue.ack('$held')", 'QU001', "by $by: a receipt of before is void");
	ledger_ok($restored, "by $by");
	check_ok($restored);

	# the prepared message is as much there as its row
	$restored->safe_psql('postgres', "COMMIT PREPARED 'enqueue'") if $by eq 'name';
	ledger_ok($restored, "by $by, prepared");
	my $last = $restored->safe_psql('postgres', 'SELECT max(id) FROM sent');
	ok(await_worker($restored, 'postgres', 1, 10), "by $by: the worker comes");
	$traffic = start_traffic($restored, seconds => 1);
	finish_traffic($traffic);
	confirmed_ok($restored, $traffic, 10);
	cmp_ok($restored->safe_psql('postgres', "SELECT min(id) FROM sent WHERE n >= $traffic->{base}"), '>', $last, "by $by: new ids are above all old ones");
	drain_ok($restored, "by $by");
	is($restored->safe_psql('postgres', 'SELECT count(*) FROM worked WHERE n = -1'), $by eq 'name' ? '1' : '0', "by $by: the prepared message was delivered");
	check_ok($restored);
	$restored->stop;
}
done_testing();
