# Traffic under REPEATABLE READ and SERIALIZABLE: nobody fails for a message of somebody else; whose business rows
# conflict is told so, tries again and loses nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->safe_psql('postgres', q{
	CREATE TABLE total (n bigint);
	INSERT INTO total VALUES (0);
	CREATE TABLE balance (n bigint);
});

foreach my $level ('repeatable read', 'serializable')
{
	my $options = '-c default_transaction_isolation=' . $level =~ s/ /\\ /r;

	# rows of strangers only
	my $before = worked($node);
	my $traffic = start_traffic($node, produce => 3, consume => 3, seconds => 3, options => $options);
	finish_traffic($traffic);
	cmp_ok(worked($node), '>', $before + 100, "$level: work is done");
	unlike($traffic->{output}, qr/ERROR|serialize|failed transactions: [1-9]/, "$level: nobody fails");
	confirmed_ok($node, $traffic, 10);
	ledger_ok($node, $level);
	check_ok($node);

	# each updates the same row, and reads what the others insert
	$before = worked($node);
	$traffic = start_traffic($node, produce => 1, consume => 4, seconds => 3, options => $options, max_tries => 1000,
		also => 'INSERT INTO balance SELECT count(*) FROM balance WHERE n < 5;' . 'UPDATE total SET n = n + 1;');
	finish_traffic($traffic);
	cmp_ok(worked($node), '>', $before, "$level, conflicts: work is done");
	my $retried = 0;
	$retried += $1 while $traffic->{output} =~ /number of transactions retried: (\d+)/g;
	cmp_ok($retried, '>', 0, "$level, conflicts: transactions were tried again");
	ledger_ok($node, "$level, conflicts");
	is($node->safe_psql('postgres', 'SELECT n - (SELECT count(*) FROM balance) FROM total'), '0', "$level, conflicts: rows agree");
	check_ok($node);
}
drain_ok($node, 'at the end');
check_ok($node);
$node->stop;
done_testing();
