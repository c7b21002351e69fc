# Many queues: each has one segment, all work, a call costs the same.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_locks_per_transaction = 512");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION queue');
my $n = 1000;
for my $part (0 .. 9)
{
	$node->safe_psql('postgres', "SELECT queue.create('q' || n) FROM generate_series($part * 100 + 1, $part * 100 + 100) n");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.queues'), 2 * $n, 'a thousand queues and their dead-letter queues');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.segments'), 2 * $n, 'one segment each');
$node->safe_psql('postgres', "SELECT count(queue.enqueue('q' || n, to_jsonb(n))) FROM generate_series(1, $n) n");
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, $n) n, queue.dequeue('q' || n) m WHERE m.payload = to_jsonb(n) AND queue.ack(m.receipt) IS NOT NULL"),
	$n, 'each gave its message');
is($node->safe_psql('postgres', 'SELECT sum(ready + leased), sum(total_acked) FROM queue.stats'), "0|$n", 'all counted');
$node->safe_psql('postgres', "SELECT count(queue.enqueue('q' || n, to_jsonb(n))) FROM generate_series(1, $n) n");
$node->restart;
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q777')"), '777', 'after a restart the one that is asked');
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, $n) n, queue.dequeue('q' || n) m"), $n - 1, 'and all others');
is($node->safe_psql('postgres', "SELECT count(*) FROM queue.segments WHERE queue LIKE '%dead'"), $n, 'still one segment for each that nobody used');
check_ok($node);
$node->safe_psql('postgres', "SELECT queue.drop('q' || n, true) FROM generate_series(1, 200) n");
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.queues'), 2 * $n - 400, 'two hundred dropped at once');
check_ok($node);

# over the limit: an error that names the setting, and nothing is broken
$node->append_conf('postgresql.conf', "queue.max_queues = 1700");
$node->restart;
my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT queue.create('more' || n) FROM generate_series(1, 200) n");
like($stderr, qr/53400.*queue\.max_queues/s, 'too many: 53400, and the setting to raise');
is($node->safe_psql('postgres', "SELECT count(*) FROM queue.queues WHERE queue LIKE 'more%'"), '0', 'none of the statement is left');
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q999')"), '999', 'the others work');
check_ok($node);
$node->stop;
done_testing();
