# A standby that is promoted keeps the order of keys, blocked keys, and what was accepted once, whatever the primary was
# in the middle of.

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
	SELECT queue.create('line', '{"ordered": true, "on_dead": "block", "backoff": "fixed", "backoff_base": "1 min", "backoff_jitter": 0,
		"max_attempts": 0, "segment_size": "64kB", "dedup_window": "1 h"}');
	SELECT queue.create('once', '{"dedup_window": "infinity"}');
});
make_send_and_drain($node);
ok(await_worker($node, 'postgres', 1), 'the worker runs');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# several segments; one key waits for a retry, of one some are leased, one is blocked, one was delayed
$node->safe_psql('postgres', "SELECT send(letter, 1, 200) FROM unnest(ARRAY['a', 'b', 'c', 'd']) letter");
$node->safe_psql('postgres', "SELECT queue.nack(receipt, 'no') FROM queue.dequeue('line', options => '{\"key\": \"a\"}')");
$node->safe_psql('postgres', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('line', 50, options => '{\"key\": \"b\"}')");
$node->safe_psql('postgres', "SELECT count(*) FROM queue.dequeue('line', 20, '1 h', options => '{\"key\": \"b\"}')");
$node->safe_psql('postgres', "SELECT queue.reject(receipt) FROM queue.dequeue('line', options => '{\"key\": \"c\"}')");
$node->safe_psql('postgres', "SELECT queue.enqueue('line', '{\"n\": \"e1\"}', key => 'e', delay => '1 s', dedup_key => 'late')");
my $first = $node->safe_psql('postgres', "SELECT queue.enqueue('once', '1', dedup_key => 'k', options => '{\"unique_key\": \"u\"}')");
is($node->safe_psql('postgres', "SELECT queue.once('c', 'm')"), 't', 'for the first time');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$node->stop('immediate');
$standby->promote;
ok(await_worker($standby, 'postgres', 1), 'the worker runs on what was the standby');
$standby->safe_psql('postgres', "SELECT queue.clock_advance('2 min')");

my %came;
foreach my $name (split /,/, $standby->safe_psql('postgres', 'CALL drain()') =~ s/[{}]//gr)
{
	my ($of, $n) = $name =~ /^(\D)(\d+)$/;

	push @{ $came{$of} }, $n;
}
is(join(',', @{ $came{a} }), join(',', 1 .. 200), 'what waited for a retry comes first of its key');
is(join(',', @{ $came{b} }), join(',', 51 .. 200), 'what was leased comes again, in order');
is(join(',', @{ $came{d} }), join(',', 1 .. 200), 'a key that nobody had touched');
is(join(',', @{ $came{e} }), '1', 'what was delayed');
is($came{c}, undef, 'the blocked key is blocked');
is($standby->safe_psql('postgres', "SELECT queue.unblock('line', 'c')"), 't', 'until it is unblocked');
is($standby->safe_psql('postgres', 'CALL drain()'), '{' . join(',', map { "c$_" } 2 .. 200) . '}', 'and goes on in order');
is($standby->safe_psql('postgres', "SELECT queue.enqueue('once', '2', dedup_key => 'k')"), $first, 'a dedup key is known');
is($standby->safe_psql('postgres', "SELECT queue.enqueue('once', '2', options => '{\"unique_key\": \"u\"}')"), $first, 'so is a unique key');
is($standby->safe_psql('postgres', "SELECT duplicate FROM queue.enqueue_unique('line', '2', key => 'e', dedup_key => 'late')"), 't', 'and one of an ordered queue');
is($standby->safe_psql('postgres', "SELECT queue.once('c', 'm')"), 'f', 'and the inbox');
is($standby->safe_psql('postgres', 'SELECT * FROM queue.check()'), '', 'check() finds nothing');

$standby->stop;
done_testing();
