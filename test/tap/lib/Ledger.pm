# Ledger.pm
#	  Traffic by pgbench whose business rows tell what must have become of each
#	  message, whatever happens to the server meanwhile.
#
# A producer inserts a row into "sent" in the transaction that enqueues; a
# consumer one into "worked" for each message in the transaction that acks, and
# one into "rounds" each time. So at any commit, also the last that a crash or
# a failover has kept: sent = worked + what is in the queue.
#
# Each value tells who sent it and as his how manieth, and pgbench logs each
# transaction that a client saw committed: so it is known which rows must be
# there where no confirmed commit may be lost.

package Ledger;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

our @EXPORT = qw(create_ledger start_traffic finish_traffic stop_traffic confirmed_and_missing confirmed_ok worked ledger_ok drain_ok);

# A client's transactions that are rolled back: every so manieth.
my %rolled_back = (produce => 10, consume => 7);

# Values of two starts of traffic, and of two clients of one, never meet.
my $start = 0;
my $room = 1_000_000;

my %script = (
	produce => q{
INSERT INTO sent SELECT :value, queue.enqueue('q', to_jsonb(:value), headers => jsonb_build_object('fill', repeat(md5('x'), 8)));
},
	consume => q{
WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 3, wait => '500 ms')),
w AS (INSERT INTO worked SELECT payload::bigint FROM m)
SELECT count(queue.ack(receipt)) FROM m;
INSERT INTO rounds VALUES (:value);
});

# The rows that a confirmed transaction of a role has left.
my %table = (produce => 'sent', consume => 'rounds');

# Small segments, so that traffic goes through many of them.
sub create_ledger
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE EXTENSION queue;
		SELECT queue.create('q', '{"backoff": "none", "max_attempts": 0, "segment_size": "64kB"}');
		CREATE TABLE sent (n bigint, id bigint);
		CREATE TABLE worked (n bigint);
		CREATE TABLE rounds (n bigint);
	});
}

# Producers and consumers, until their server goes away or their time is over.
# May be given: how many clients of each role, seconds, options of their
# sessions ("-c name=value"), what a consumer also does in its transaction, and
# how often one that fails to serialize is tried. (Each try is counted in the
# value, so confirmed_ok() is not for those.)
sub start_traffic
{
	my ($node, %params) = @_;
	my %traffic = (node => $node, base => $start++ * 100 * $room, output => '');

	foreach my $role (qw(produce consume))
	{
		my $clients = $params{$role} // 2;
		my $also = $role eq 'consume' ? $params{also} // '' : '';
		my $prefix = $node->basedir . "/$role.$traffic{base}";

		append_to_file("$prefix.sql", "\\set n :n + 1\n\\set value :base + :client_id * $room + :n\n\\set back :n % $rolled_back{$role}\n"
			  . "BEGIN;$script{$role}$also\n\\if :back = 0\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n");
		local $ENV{PGOPTIONS} = $params{options} // '';
		$traffic{prefix}{$role} = $prefix;
		$traffic{$role} = IPC::Run::start(
			[ 'pgbench', '-n', '-c', $clients, '-T', $params{seconds} // 60, '-l', '--log-prefix', $prefix, '-D', 'n=0', '-D', "base=$traffic{base}",
				'--max-tries', $params{max_tries} // 1,
				'-f', "$prefix.sql", '-h', $node->host, '-p', $node->port, 'postgres' ],
			'>', \$traffic{output}, '2>', \$traffic{output});
	}
	return \%traffic;
}

# Waits for both to end: their time is over, or their server was taken away.
sub finish_traffic
{
	my ($traffic) = @_;

	$traffic->{$_}->finish foreach qw(produce consume);
}

# Ends both, in the middle of whatever they do.
sub stop_traffic
{
	my ($traffic) = @_;

	$traffic->{$_}->signal('TERM') foreach qw(produce consume);
	finish_traffic($traffic);
}

# Confirmed transactions of each client, from pgbench's log.
sub confirmed
{
	my ($traffic, $role) = @_;
	my %count;

	foreach my $file (glob("$traffic->{prefix}{$role}.[0-9]*"))
	{
		$count{$_}++ foreach slurp_file($file) =~ /^(\d+) \d+ \d+ /mg;
	}
	return \%count;
}

# How many transactions of a role were confirmed, and how many of those are not there.
sub confirmed_and_missing
{
	my ($node, $traffic, $role) = @_;
	my $count = confirmed($traffic, $role);
	my @ranges = map { my $first = $traffic->{base} + $_ * $room; "SELECT $first + i FROM generate_series(1, $count->{$_}) i WHERE i % $rolled_back{$role} <> 0" } keys %$count;
	my $all = 0;

	$all += $_ foreach values %$count;
	return (0, 0) if $all == 0;
	return ($all, $node->safe_psql('postgres', 'SELECT count(*) FROM ((' . join(' UNION ALL ', @ranges) . ") EXCEPT SELECT n FROM $table{$role}) AS missing"));
}

# Every commit that a client saw confirmed is there; at least so many there were.
sub confirmed_ok
{
	my ($node, $traffic, $least) = @_;

	foreach my $role (qw(produce consume))
	{
		my ($all, $missing) = confirmed_and_missing($node, $traffic, $role);

		cmp_ok($all, '>=', $least, "$role: $all transactions were confirmed");
		is($missing, '0', "$role: what was confirmed is there");
	}
}

sub worked
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT count(*) FROM worked');
}

# Messages and business rows agree.
sub ledger_ok
{
	my ($node, $name) = @_;
	my %wrong = (
		'lost' => 'SELECT n FROM sent EXCEPT SELECT n FROM worked EXCEPT SELECT payload::bigint FROM queues.q',
		'acked and back' => 'SELECT payload::bigint FROM queues.q INTERSECT SELECT n FROM worked',
		'never sent' => '(SELECT payload::bigint FROM queues.q UNION SELECT n FROM worked) EXCEPT SELECT n FROM sent',
		'worked on twice' => 'SELECT n FROM worked GROUP BY n HAVING count(*) > 1',
		'there twice' => 'SELECT payload FROM queues.q GROUP BY payload HAVING count(*) > 1',
		'with an id that was given twice' => 'SELECT id FROM sent GROUP BY id HAVING count(*) > 1',
		'with another id' => 'SELECT m.id FROM queues.q m JOIN sent ON n = payload::bigint WHERE m.id <> sent.id');

	foreach my $what (sort keys %wrong)
	{
		is($node->safe_psql('postgres', "SELECT count(*) FROM ($wrong{$what}) AS wrong"), '0', "$name: none is $what");
	}
}

# Whatever is left can be had, once each; leases are void, so nothing waits.
sub drain_ok
{
	my ($node, $name) = @_;
	my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM queues.q');
	my $got = 0;

	# what its own traffic has rolled back is soon written
	ok(await($node, 'SELECT count(*) FROM queue.leases', expected => '0'), "$name: nobody holds anything");
	while ($got < $left)
	{
		my $count = $node->safe_psql('postgres', q{
			WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 10000, wait => '1 s')),
			w AS (INSERT INTO worked SELECT payload::bigint FROM m)
			SELECT count(queue.ack(receipt)) FROM m});

		last if $count == 0;
		$got += $count;
	}
	is($got, $left, "$name: all $left that are left are delivered");
	ledger_ok($node, "$name, drained");
}

1;
