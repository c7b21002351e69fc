# A standby shows the queue and changes nothing; promoted, it goes on: nothing lost, leases void.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('primary', allows_streaming => 1, conf => "max_connections = 30\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "segment_size": "64kB"}');
	SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 30)))) FROM generate_series(1, 50) n;
});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# all kinds of change while it follows
$node->safe_psql('postgres', 'SELECT count(queue.ack(receipt)) FROM queue.dequeue(\'q\', 10)');
my $nacked = take($node, 'q');
$node->safe_psql('postgres', "SELECT queue.nack('$nacked', 'broken')");
my $held = take($node, 'q');
$node->safe_psql('postgres', "SELECT queue.enqueue('q', '1000', delay => '1 h')");
# a whole segment, emptied in place
$node->safe_psql('postgres', "SELECT queue.create('turn', '{\"segment_size\": \"64kB\"}')");
for my $turn (1 .. 3)
{
	$node->safe_psql('postgres', "SELECT count(queue.enqueue('turn', to_jsonb(repeat(md5(n::text), 40)))) FROM generate_series(1, 100) n");
	$node->safe_psql('postgres', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('turn', 1000)");
}
advance($node, '70 s');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'turn' AND state = 'sealed'", expected => '0', limit => 30), 'the primary empties segments');
my $last = $node->safe_psql('postgres', 'SELECT max(id) FROM queues.q');
my $facts = "SELECT count(*), sum(id), min(id), max(failures) FROM queues.q";
my $before = $node->safe_psql('postgres', $facts);
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));

is($standby->safe_psql('postgres', $facts), $before, 'the standby shows what the primary has');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM queues.turn'), '0', 'and what was emptied');
foreach my $call ("queue.dequeue('q')", "queue.pop('q')", "queue.enqueue('q', '1')", "queue.ack('$held')", "queue.purge('q')", "queue.cancel('q', 1)",
	"queue.create('new')", "queue.drop('q', true)", "queue.pause('q')", "queue.extend('$held')", "queue.release('$held')", "queue.nack('$held')")
{
	fails($standby, "SELECT $call", '25006', "$call on a standby");
}
is(sqlstate($standby, "INSERT INTO queues.q (payload) VALUES ('1')"), '25006', 'INSERT on a standby');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'queue %'"), '0', 'no worker on a standby');
is($standby->safe_psql('postgres', 'SELECT count(*) > 0 FROM queue.queues'), 't', 'queues can be seen');
ok(defined eval { $standby->safe_psql('postgres', 'SELECT count(*) FROM queue.stats') }, 'queue.stats can be read');
ok(defined eval { $standby->safe_psql('postgres', 'SELECT count(*) FROM queue.segments') }, 'queue.segments can be read');
ok(defined eval { $standby->safe_psql('postgres', 'SELECT count(*) FROM queue.health()') }, 'queue.health() can be read');

$node->stop('immediate');
$standby->promote;
ok(await($standby, 'SELECT NOT pg_is_in_recovery()'), 'promoted');
is($standby->safe_psql('postgres', $facts), $before, 'the same messages');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '0', 'no leases');
fails($standby, "SELECT queue.ack('$held')", 'QU001', 'a receipt of the primary is void');
ok(await_worker($standby, 'postgres', 1, 10), 'a worker comes');
cmp_ok($standby->safe_psql('postgres', "SELECT queue.enqueue('q', '2000')"), '>', $last, 'ids are not given twice');
is(take_all($standby, 'q', 'count(*), count(DISTINCT id), max(attempt)'), '41|41|2', 'all can be had, the held one too');
$standby->psql('postgres', "SELECT queue.clock_advance('61 min')");
ok(await($standby, "SELECT count(*) FROM queues.q WHERE payload = '1000' AND state = 'ready'", expected => '1'), 'the delayed one falls due');
check_ok($standby);
$standby->stop;
done_testing();
