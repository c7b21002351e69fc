# Shared memory is as large as doc/settings.md says for each setting.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION queue');

my $page = slurp_file("$FindBin::RealBin/../../doc/settings.md");
my %documented;
$documented{$1} = $2 while $page =~ /^\| memory for `(queue\.\w+)` \| (\d+)(?: a kB)? \|/mg;
is(scalar(keys %documented), 8, 'eight settings with their memory are documented');

my $total = "SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name LIKE 'queue %'";
my $with_defaults = $node->safe_psql('postgres', $total);
my %unit = ('queue.map_memory' => 'kB');
my %larger = (
	'queue.max_keys' => 200000, 'queue.max_leases' => 100000, 'queue.max_queues' => 20000, 'queue.max_segments' => 50000,
	'queue.max_databases' => 2000, 'queue.max_meters' => 100000, 'queue.max_relays' => 20000, 'queue.map_memory' => 131072);

foreach my $setting (sort keys %larger)
{
	my $before = $node->safe_psql('postgres', "SELECT setting FROM pg_settings WHERE name = '$setting'");

	$node->append_conf('postgresql.conf', "$setting = " . $larger{$setting} . ($unit{$setting} // ''));
	$node->restart;
	my $bytes = ($node->safe_psql('postgres', $total) - $with_defaults) / ($larger{$setting} - $before);
	note("$setting: $bytes bytes a unit, documented: $documented{$setting}");
	# The server's own hash tables differ a little from major to major.
	cmp_ok($bytes, '<=', $documented{$setting} * 1.06, "$setting takes no more than documented");
	cmp_ok($bytes, '>', $documented{$setting} * 0.98 - 50, "$setting takes what is documented, which is rounded up to fifty");
	$node->append_conf('postgresql.conf', "$setting = $before" . ($unit{$setting} // ''));
	$node->restart;
}

# the smallest settings serve too
$node->append_conf('postgresql.conf',
	"queue.max_leases = 64\nqueue.max_keys = 64\nqueue.max_meters = 64\nqueue.max_queues = 16\nqueue.max_segments = 16\nqueue.max_databases = 1\nqueue.max_relays = 1\nqueue.map_memory = '256kB'");
$node->restart;
$node->safe_psql('postgres', "SELECT queue.create('q', '{\"backoff\": \"none\"}'); SELECT count(queue.enqueue('q', to_jsonb(n))) FROM generate_series(1, 5000) n");
my $some = $node->safe_psql('postgres', "SELECT count(*) FROM queue.dequeue('q', 1000)");
cmp_ok($some, '>', 0, "few slots: some messages ($some)");
fails($node, "SELECT * FROM queue.dequeue('q', 1000)", '53400', 'none left: 53400');
like(slurp_file($node->logfile), qr/LOG:.*no lease slots left/, 'and a line in the log');
advance($node, '31 s');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM queue.dequeue('q', 10, wait => '5 s')"), 't', 'they come back at the deadline');
$node->stop('immediate');
$node->start;
my $acked = 0;
while ((my $got = $node->safe_psql('postgres', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 30)")) > 0)
{
	$acked += $got;
}
is($acked, 5000, 'all of them in small batches');
check_ok($node);
$node->stop;
done_testing();
