# One consumer at a time: the end of a session, of its leases, of the server. There is no worker, so that
# nobody writes what has run out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_worker_processes = 0\nqueue.max_wait = '60s'\nmax_prepared_transactions = 10");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE TABLE got (who text, payload text);
	CREATE FUNCTION send(queue text, names text) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue(queue, to_jsonb(n))) FROM unnest(string_to_array(names, ' ')) n $$;
});
my $sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'";

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub fresh
{
	my ($queue, $names) = @_;

	query("SELECT queue.create('$queue', '{\"single_active_consumer\": true, \"backoff\": \"none\", \"lease_timeout\": \"30 s\", \"max_attempts\": 0}')");
	query("SELECT send('$queue', '$names')");
	return;
}

# What a named consumer gets.
sub take_as
{
	my ($queue, $who, $lease) = @_;

	return query("SELECT payload #>> '{}' FROM queue.dequeue('$queue', 1, '$lease', options => '{\"consumer\": \"$who\"}')");
}

sub receipt_as
{
	my ($queue, $who) = @_;

	return query("SELECT receipt FROM queue.dequeue('$queue', 1, '30 s', options => '{\"consumer\": \"$who\"}')");
}

sub start_waiting
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/waits/, "\\echo waits\n$sql;\n");
	ok(await($node, $sleeping, expected => '1'), 'one waits');
	return $session;
}

sub active
{
	my ($queue) = @_;

	return query("SELECT active_consumer FROM queue.stats WHERE queue = '$queue'");
}

# ---- fencing

fresh('late', '1 2 3');
my @receipts = map { receipt_as('late', 'a') } 1 .. 3;
advance($node, '31 s');
isnt(query("SELECT queue.extend('$receipts[0]', '30 s')"), '', 'a late extend is good while nobody has taken over');
is(take_as('late', 'b', '30 s'), '', 'and keeps the place');
query("SELECT queue.ack('$receipts[1]')");
advance($node, '31 s');
is(take_as('late', 'b', '30 s'), '1', 'another one takes over');
fails($node, "SELECT queue.ack('$receipts[2]')", 'QU001', 'a late ack is lost then, though nobody has the message');
fails($node, "SELECT queue.extend('$receipts[2]')", 'QU001', 'so is a late extend');
fails($node, "SELECT queue.nack('$receipts[2]')", 'QU001', 'and a late nack');
is(take_as('late', 'a', '30 s'), '', 'the former one stands by');
is(take_as('late', 'b', '30 s'), '3', 'the message goes to who is active');

# It counts as well where nothing was there to be taken.
fresh('empty', '1');
my $receipt = receipt_as('empty', 'a');
advance($node, '31 s');
query("BEGIN; SELECT queue.ack('$receipt'); PREPARE TRANSACTION 'p'");
is(take_as('empty', 'b', '30 s'), '', 'a late ack that is prepared keeps the place');
query("ROLLBACK PREPARED 'p'");
is(take_as('empty', 'b', '30 s'), '1', 'rolled back, it does not');
fails($node, "SELECT queue.ack('$receipt')", 'QU001', 'and is lost');

# ---- the end of a session

fresh('ends', '1 2 3');
my $session = $node->background_psql('postgres');
is($session->query_safe("SELECT payload #>> '{}' FROM queue.dequeue('ends')"), '1', 'a session is the consumer');
like(active('ends'), qr/^pid \d+$/, 'as the statistics show');
is(take_as('ends', 'b', '30 s'), '', 'another one gets nothing');
my $waiter = start_waiting("INSERT INTO got SELECT 'b', payload #>> '{}' FROM queue.dequeue('ends', wait => '60 s', options => '{\"consumer\": \"b\"}')");
$session->quit;
ok(await($node, "SELECT active_consumer LIKE '%(ended)' FROM queue.stats WHERE queue = 'ends'"), 'its end is known');
like(active('ends'), qr/^pid \d+ \(ended\)$/, 'and shown');
is(query($sleeping), '1', 'its lease keeps the place');
advance($node, '31 s');
ok(await($node, "SELECT payload FROM got WHERE who = 'b'", expected => '1'), 'until it has run out');
is(active('ends'), 'b', 'then the one who waited is active');
$waiter->quit;

# One with nothing to its name, and one that had not committed.
query('TRUNCATE got');
fresh('idle', '');
$session = $node->background_psql('postgres');
$session->query_safe("SELECT count(*) FROM queue.pop('idle')");
query("SELECT send('idle', '1')");
$waiter = start_waiting("CALL queue.wait('idle', '60 s');\nINSERT INTO got SELECT 'c', payload #>> '{}' FROM queue.dequeue('idle', lease => '12 h')");
$session->query_safe('BEGIN');
is($session->query_safe("SELECT payload #>> '{}' FROM queue.dequeue('idle', lease => '12 h')"), '1', 'a lease of an open transaction');
$session->quit;
ok(await($node, "SELECT payload FROM got WHERE who = 'c'", expected => '1'), 'does not outlast the session: who waited by CALL is told');
is(query("SELECT payload #>> '{}' FROM queue.dequeue('idle')"), '', 'it is active as long as it is there');
$waiter->quit;
ok(await($node, "SELECT active_consumer LIKE '%(ended)' FROM queue.stats WHERE queue = 'idle'"), 'it is gone');
is(take_as('idle', 'd', '30 s'), '', 'but not what it leased');

# A session that ends while a call of it sleeps.
fresh('cut', '');
$session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr/waits/, "\\echo waits\nSELECT count(*) FROM queue.dequeue('cut', wait => '60 s');\n");
ok(await($node, $sleeping, expected => '1'), 'the active one waits');
$waiter = $node->background_psql('postgres', on_error_stop => 0);
$waiter->query_until(qr/waits/, "\\echo waits\nINSERT INTO got SELECT 'e', payload #>> '{}' FROM queue.dequeue('cut', wait => '60 s');\n");
ok(await($node, $sleeping, expected => '2'), 'and one who stands by');
query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE 'pid ' || pid = (SELECT active_consumer FROM queue.stats WHERE queue = 'cut')");
ok(await($node, $sleeping, expected => '1'), 'the active one is terminated');
query("SELECT send('cut', '1')");
ok(await($node, "SELECT payload FROM got WHERE who = 'e'", expected => '1'), 'the other one is woken by a message');
$waiter->quit;
eval { $session->quit };

# ---- many at once

fresh('many', join ' ', 1 .. 200);
my $script = $node->basedir . '/many.sql';
PostgreSQL::Test::Utils::append_to_file($script, "INSERT INTO got SELECT :client_id, payload #>> '{}' FROM queue.dequeue('many', options => '{\"consumer\": \"c:client_id\"}');\n");
query('TRUNCATE got');
$node->command_ok([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '20', '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ], 'many dequeue at once');
is(query('SELECT count(*), count(DISTINCT who) FROM got'), '20|1', 'one of them gets messages');

# Takeovers among many, by a clock that moves: no two have leases at a time.
fresh('raced', join ' ', 1 .. 20);
query('CREATE TABLE leased (who text, since timestamptz, until timestamptz)');
my $race = $node->basedir . '/race.sql';
PostgreSQL::Test::Utils::append_to_file($race, "INSERT INTO leased SELECT :client_id, lease_until - interval '30 s', lease_until FROM queue.dequeue('raced', options => '{\"consumer\": \"c:client_id\"}');\n");
my $move = $node->basedir . '/move.sql';
PostgreSQL::Test::Utils::append_to_file($move, "SELECT queue.clock_advance('31 s');\n");
$node->command_ok([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '100', '-f', "$race\@20", '-f', "$move\@1", '-h', $node->host, '-p', $node->port, 'postgres' ], 'many dequeue while the clock moves');
cmp_ok(query('SELECT count(DISTINCT who) FROM leased'), '>', 1, 'several had their turn');
is(query('SELECT count(*) FROM leased a JOIN leased b ON a.who < b.who AND a.since < b.until AND b.since < a.until'), '0', 'one at a time');

# ---- the option is reset while somebody stands by

query('TRUNCATE got');
fresh('altered', '1 2');
is(take_as('altered', 'a', '12 h'), '1', 'one is active');
$waiter = start_waiting("INSERT INTO got SELECT 'b', payload #>> '{}' FROM queue.dequeue('altered', wait => '60 s')");
query("SELECT queue.alter('altered', '{\"single_active_consumer\": false}')");
ok(await($node, "SELECT payload FROM got WHERE who = 'b'", expected => '2'), 'the other one gets messages at once');
$waiter->quit;

# ---- restart and crash

foreach my $mode (qw(fast immediate))
{
	fresh("restart_$mode", '1 2');
	is(take_as("restart_$mode", 'a', '12 h'), '1', "before a stop ($mode)");
	is(take_as("restart_$mode", 'b', '12 h'), '', 'only one gets messages');
	$node->stop($mode);
	$node->start;
	is(active("restart_$mode"), '', 'after it nobody is active');
	is(take_as("restart_$mode", 'b', '12 h'), '1', 'and whoever comes first is it');
	is(take_as("restart_$mode", 'a', '12 h'), '', 'alone');
}

check_ok($node);
$node->stop;
done_testing();
