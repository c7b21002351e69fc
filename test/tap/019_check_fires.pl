# Each rule of queue.check() fires when what it looks at is broken, and a restart mends it.

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
$node->safe_psql('postgres', "CREATE EXTENSION queue; SELECT queue.create('broken')");
fails($node, "SELECT queue._break('broken', 'slot')", '55000', 'no lease, nothing to break');

sub rules
{
	return $node->safe_psql('postgres', "SELECT rule || ': ' || detail FROM queue.check() ORDER BY rule");
}

# what is broken, and what is said of it
my %says = (
	counter => qr/^counter: the counter says/,
	slot_count => qr/^slot_count: \d+ slots are used/,
	slot => qr/^slot: slot \d+ of message -\d+: /,
	chain => qr/^slot: slot \d+ of message \d+: /);

foreach my $fault (sort keys %says)
{
	$node->safe_psql('postgres', "SELECT count(queue.enqueue('broken', to_jsonb(n))) FROM generate_series(1, 3) n");
	$node->safe_psql('postgres', "SELECT count(*) FROM queue.dequeue('broken', 2)");
	ok(await($node, "SELECT exact FROM queue.stats WHERE queue = 'broken'"), 'counted');
	is(rules(), '', "$fault: all is well");
	$node->safe_psql('postgres', "SELECT queue._break('broken', '$fault')");
	like(rules(), qr/$says{$fault}.*\z/, "$fault: found, and nothing else");
	$node->restart;
	ok(await($node, "SELECT exact FROM queue.stats WHERE queue = 'broken'"), 'counted after a restart');
	check_ok($node);
}
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.broken"), '12', 'no message was touched');

# what a superuser can do to the catalog
$node->safe_psql('postgres', "DELETE FROM queue._segment WHERE queue = (SELECT id FROM queue._queue WHERE view = 'queues.broken'::regclass)");
is(rules(), "ring: catalog and ring of segments differ\nsegments: it has no segment", 'a queue without segments in the catalog');
$node->stop;
done_testing();
