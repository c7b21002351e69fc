# Without shared_preload_libraries the extension says what to do.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "shared_preload_libraries = ''");
$node->start;
my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nCREATE EXTENSION queue");
if ($status != 0)
{
	like($stderr, qr/55000/, 'CREATE EXTENSION is refused with 55000');
	like($stderr, qr/HINT:.*shared_preload_libraries.*restart/s, 'and a hint that names the setting and the restart');
}
foreach my $call ("queue.create('q')", "queue.enqueue('q', '1')", "queue.dequeue('q')", "queue.ack(gen_random_uuid())",
	"queue.purge('q')", "queue.cancel('q', 1)", "queue.drop('q')", "queue.health()", "queue.check()", "queue.clock_advance('1 s')")
{
	next if $status != 0;
	($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($stderr, qr/ERROR:\s+55000/, "$call is refused with 55000");
	like($stderr, qr/HINT:.*shared_preload_libraries.*restart/s, "$call: a hint that names the setting and the restart");
	$status = 0;
}
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server lives');

# preloaded after all
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'queue'");
$node->restart;
$node->safe_psql('postgres', "CREATE EXTENSION IF NOT EXISTS queue; SELECT queue.create('q'); SELECT queue.enqueue('q', '1')");
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q')"), '1', 'preloaded, it works');

# and then not any more: messages stay
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
fails($node, "SELECT * FROM queue.dequeue('q')", '55000', 'dequeue without preload');
fails($node, "INSERT INTO queues.q (payload) VALUES ('2')", '55000', 'INSERT without preload');
fails($node, "SELECT * FROM queues.q", '55000', 'peek without preload');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'queue'");
$node->restart;
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q')"), '1', 'the message is still there');
check_ok($node);
$node->stop;
done_testing();
