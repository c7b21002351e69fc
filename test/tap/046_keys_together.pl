# Many keys of an ordered queue that are ready at the same time: their pages are gone through once for all. There
# is no worker, and the rows are long, so that each key's next message is some pages on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_prepared_transactions = 10\nmax_worker_processes = 0\nqueue.recheck_interval = '1min'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE TABLE held (id bigint GENERATED ALWAYS AS IDENTITY, name text, receipt uuid);
	CREATE FUNCTION take(queue text, n int, options jsonb = '{}') RETURNS text LANGUAGE sql AS
	$$ WITH taken AS (INSERT INTO held (name, receipt) SELECT payload->>'name', receipt FROM queue.dequeue(queue, n, '6 hours', options => options) RETURNING name)
	   SELECT string_agg(name, ' ') FROM taken $$;
	CREATE FUNCTION ack() RETURNS int LANGUAGE sql AS
	$$ WITH gone AS (DELETE FROM held RETURNING receipt) SELECT CASE WHEN count(*) > 0 THEN queue.ack_batch(array_agg(receipt)) ELSE 0 END FROM gone $$;
	CREATE PROCEDURE send(queue text, names text[]) LANGUAGE sql AS
	$$ SELECT count(queue.enqueue(queue, jsonb_build_object('name', n, 'rest', (SELECT string_agg(md5(n || i), '') FROM generate_series(1, CASE WHEN n LIKE 'long%' THEN 2000 ELSE 30 END) i)), key => split_part(n, '.', 1))) FROM unnest(names) n $$;
});

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub fresh
{
	my ($queue, @names) = @_;

	query('TRUNCATE held');
	query("SELECT queue.create('$queue', '{\"ordered\": true, \"backoff\": \"none\"}')");
	query("CALL send('$queue', '{" . join(',', @names) . "}')");
	return;
}

sub sorted
{
	return join ' ', sort split / /, shift;
}

my @keys = map { sprintf 'k%02d', $_ } 1 .. 40;
my %next = map { $_ => 1 } @keys;

# The next one of each key but of some, which is to be acked then.
sub next_of_all
{
	my %without = map { $_ => 1 } @_;

	return sorted(join ' ', map { "$_." . $next{$_}++ } grep { !$without{$_} } @keys);
}

# ---- one after the other, each key's

fresh('turns', map { my $n = $_; map { "$_.$n" } @keys } 1 .. 9);
is(query("SELECT take('turns', 40)"), next_of_all(), 'the first of all keys');
is(query("SELECT take('turns', 40)"), '', 'all keys are held');
query('SELECT ack()');
is(sorted(query("SELECT take('turns', 40)")), next_of_all(), 'then the second ones');
query('SELECT ack()');

my @parts = map { query("SELECT take('turns', 7)") } 1 .. 6;
is(sorted(join ' ', @parts), next_of_all(), 'the third ones in parts: each comes once');
query('SELECT ack()');

# one that is being deleted
query("BEGIN; SELECT queue.cancel('turns', id) FROM queues.turns WHERE payload->>'name' IN ('k07.4', 'k31.4'); PREPARE TRANSACTION 'p'");
is(sorted(query("SELECT take('turns', 100)")), next_of_all('k07', 'k31'), 'two that are being deleted hold their keys alone');
query('SELECT ack()');
query("ROLLBACK PREPARED 'p'");
advance($node, '61 s');
is(sorted(query("SELECT take('turns', 40)")), next_of_all(), 'they come when that has ended');

# what came back is before the backlog
query("SELECT queue.nack(receipt) FROM held WHERE name IN ('k03.5', 'k39.5')");
query("SELECT queue.release(receipt, '1 h') FROM held WHERE name = 'k12.5'");
query("DELETE FROM held WHERE name IN ('k03.5', 'k39.5', 'k12.5')");
query('SELECT ack()');
$next{k03} = $next{k39} = $next{k12} = 5;
is(sorted(query("SELECT take('turns', 40)")), next_of_all('k12'), 'what failed comes again, and what was put off holds its key');
query('SELECT ack()');
advance($node, '1 h');
is(sorted(query("SELECT take('turns', 40)")), next_of_all(), 'it comes in its time');
query('SELECT ack()');

# a statement that ends in between has taken nothing, and the keys are where they were
query("BEGIN; SELECT take('turns', 40); ROLLBACK");
advance($node, '7 h');
my %last;
my $seen = 0;
my $good = 1;

for (1 .. 20)
{
	my $names = query("SELECT take('turns', 25)");

	foreach my $name (split / /, $names)
	{
		my ($key, $number) = split /\./, $name;

		$good &&= $number > ($last{$key} // 0);
		$last{$key} = $number;
		$seen++;
	}
	query('SELECT ack()');
}
ok($good, 'the rest comes in order');
is(scalar(grep { $_ == 9 } values %last), 40, 'to the last of each key');
is(query('SELECT count(*) FROM queues.turns'), '0', 'and nothing is left');

# ---- a key that has much is not before those that have little

fresh('fair', 'a.0', (map { "b$_.1" } 1 .. 9), (map { "a.$_" } 1 .. 200), map { "b$_.2" } 1 .. 9);
is(query("SELECT take('fair', 10)"), 'a.0 ' . join(' ', map { "b$_.1" } 1 .. 9), 'all keys have begun');
is(query("SELECT take('fair', 10)"), '', 'and are held');
query('SELECT ack()');
my %calls;
for my $call (1 .. 12)
{
	$calls{$_} //= $call foreach split / /, query("SELECT take('fair', 5)");
	query('SELECT ack()');
}
is(scalar(grep { exists $calls{"b$_.2"} } 1 .. 9), 9, 'each of those that have little has come');
ok(exists $calls{'a.1'}, 'as has the other one');

# ---- a key that has nothing for many pages does not hold up the others

fresh('gap', 'x.1', map { "$_.1" } @keys);
query("SELECT take('gap', 100)");
query("CALL send('gap', '{x.2," . join(',', map { my $n = $_; map { "$_.$n" } @keys } 2 .. 70) . ",x.3}')");
is(query("SELECT take('gap', 10)"), '', 'all keys are held, and the rest is passed over');
query("UPDATE held SET name = 'apart' WHERE name = 'x.1'");
my $apart = query("DELETE FROM held WHERE name = 'apart' RETURNING receipt");
for (1 .. 60)
{
	query('SELECT ack()');
	query("SELECT take('gap', 60)");
}
query("SELECT ack(), queue.ack('$apart')");
my %got;
my @calls;
for (1 .. 12)
{
	my @names = split / /, query("SELECT take('gap', 60)");

	push @calls, scalar @names;
	$got{$_}++ foreach @names;
	query('SELECT ack()');
}
ok($got{'x.2'} && $got{'x.3'}, 'it comes, and goes on behind the gap');
is(scalar(grep { $_ < 40 } @calls[0 .. 7]), 0, 'while others come: ' . join(' ', @calls));

# ---- nor does one whose messages are too long for what is left

fresh('sizes', 'long.1', map { "$_.1" } @keys);
query("SELECT take('sizes', 41)");
query("CALL send('sizes', '{" . join(',', (map { "long.$_" } 2 .. 9), map { my $n = $_; map { "$_.$n" } @keys } 2 .. 3) . "}')");
is(query("SELECT take('sizes', 10)"), '', 'all keys are held, and the rest is passed over');
query('SELECT ack()');
my $count = 0;
$count++ while query("SELECT take('sizes', 100, '{\"max_bytes\": 20000}')") ne '' && query('SELECT ack()') && $count < 100;
is(query('SELECT count(*) FROM queues.sizes'), '0', 'all have come');
cmp_ok($count, '<', 30, "a page's worth in a call: $count calls");

check_ok($node);
$node->stop;
done_testing();
