# Prepared transactions that enqueue, take and settle outlive a restart, a crash and a failover: whatever they
# hold is nobody's until they end, and then it is what they say.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('node', allows_streaming => 1, conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "segment_size": "64kB"}');
	CREATE TABLE deeds (what text, payload jsonb);
});

# Each as its message's payload says: what is done to it, and how that ends.
my @settlements = qw(ack nack reject);
my @takes = qw(dequeue pop);
my @ends = qw(commit rollback);

sub prepare
{
	my ($name, $calls) = @_;

	$node->safe_psql('postgres', "BEGIN; INSERT INTO deeds VALUES ('$name'); $calls; PREPARE TRANSACTION '$name'");
}

# One prepared transaction of each kind and end; one message is free, one is leased by somebody.
sub prepare_each
{
	foreach my $end (@ends)
	{
		foreach my $call (@settlements, @takes)
		{
			$node->safe_psql('postgres', qq{SELECT queue.enqueue('q', '"$call $end"')});
			if (grep { $_ eq $call } @takes)
			{
				prepare("$call $end", "SELECT * FROM queue.$call('q')");
				next;
			}
			my $receipt = take($node, 'q');
			prepare("$call $end", "SAVEPOINT one; SELECT queue.$call('$receipt'); ROLLBACK TO one; SELECT queue.$call('$receipt')");
		}
		prepare("enqueue $end", qq{SELECT queue.enqueue('q', '"enqueue $end"'); SAVEPOINT one; SELECT queue.enqueue('q', '"never"'); ROLLBACK TO one});
	}
	$node->safe_psql('postgres', qq{SELECT queue.enqueue('q', '"leased"')});
	my $receipt = take($node, 'q');
	$node->safe_psql('postgres', qq{SELECT queue.enqueue('q', '"free"')});
	return $receipt;
}

# All that can be had now: with attempts, in order; it is given back.
sub to_be_had
{
	return $node->safe_psql('postgres', q{
		WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 100, wait => '5 s'))
		SELECT string_agg(payload->>0 || ' ' || attempt, ', ' ORDER BY payload->>0), count(queue.release(receipt)) FROM m}) =~ s/\|\d+$//r;
}

sub resolve_ok
{
	my ($name, $receipt) = @_;

	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '12', "$name: all are prepared");
	fails($node, "SELECT queue.ack('$receipt')", 'QU001', "$name: a lease of before is void");
	# a lease outlives nothing, also one whose transaction is prepared
	my $free = 'dequeue commit 1, dequeue rollback 1, free 1, leased 1';
	is(to_be_had(), $free, "$name: what they hold is nobody's");
	is($node->safe_psql('postgres', "SELECT count(*) FROM queue.try_ack((SELECT array_agg(receipt) FROM queue.dequeue('q', 100) WHERE payload = '\"free\"')) WHERE status = 'acked'"), '1', "$name: work goes on beside them");
	advance($node, '31 s');
	check_ok($node);
	foreach my $call ('enqueue', @settlements, @takes)
	{
		$node->safe_psql('postgres', uc($_) . " PREPARED '$call $_'") foreach @ends;
	}
	# nobody is told how they ended: it is found out by looking again
	my $all = 'ack rollback 1, dequeue commit 2, dequeue rollback 2, enqueue commit 1, leased 2, nack commit 2, nack rollback 1, pop rollback 1, reject rollback 1';
	ok(await($node, 'SELECT count(*) = 9 FROM queues.q'), "$name: they have ended");
	for (1 .. 10)
	{
		advance($node, '2 s');
		last if to_be_had() eq $all;
	}
	is(to_be_had(), $all, "$name: all that is there can be had");
	is($node->safe_psql('postgres', q{SELECT string_agg(payload->>0, ', ') FROM queues.q_dead}), 'reject commit', "$name: and the dead letter");
	is($node->safe_psql('postgres', 'SELECT count(*), count(*) FILTER (WHERE what LIKE \'%commit\') FROM deeds'), '6|6', "$name: as the rows of the same transactions");
	check_ok($node);
	$node->safe_psql('postgres', q{SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 100); SELECT count(queue.ack(receipt)) FROM queue.dequeue('q_dead', 100); TRUNCATE deeds});
	ok(await($node, 'SELECT sum(ready + leased + failed) FROM queue.stats', expected => '0'), "$name: counts agree");
	check_ok($node);
}

my $receipt = prepare_each();
$node->restart;
resolve_ok('restart', $receipt);

$receipt = prepare_each();
$node->kill9;
restart_until_up($node);
resolve_ok('kill9', $receipt);

# some of them are in the backup, all of them reach the standby
prepare('before', q{SELECT queue.enqueue('q', '"before"')});
$node->backup('base');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'before'");
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$receipt = prepare_each();
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$node->stop('immediate');
$node = $standby;
$node->promote;
resolve_ok('promotion', $receipt);
$node->restart;
check_ok($node);
$node->stop;
done_testing();
