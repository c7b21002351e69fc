# Keys of an ordered queue whose next message is neither there nor gone, or dead but not written: nobody
# settles anything here but who is asked to, for there is no worker, and no recheck before the clock says so.

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
	CREATE TABLE held (payload text, receipt uuid);
	CREATE FUNCTION take(queue text, lease interval = '6 hours') RETURNS text LANGUAGE plpgsql AS
	$$ DECLARE
		m record; got text := '';
	BEGIN
		FOR m IN SELECT * FROM queue.dequeue(queue, 10, lease) LOOP
			INSERT INTO held VALUES (m.payload #>> '{}', m.receipt);
			got := concat_ws(' ', nullif(got, ''), m.payload #>> '{}');
		END LOOP;
		RETURN got;
	END $$;
	CREATE FUNCTION receipt(p text) RETURNS uuid LANGUAGE sql AS
	$$ DELETE FROM held WHERE payload = p RETURNING receipt $$;
	CREATE FUNCTION send(queue text, names text, ttl interval = NULL) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue(queue, to_jsonb(n), key => left(n, 1), ttl => ttl)) FROM unnest(string_to_array(names, ' ')) n $$;
});

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub fresh
{
	my ($queue, $options, $names) = @_;

	query('TRUNCATE held');
	query("SELECT queue.create('$queue', '{\"ordered\": true, \"dead_letter\": \"dead\", $options}')");
	query("SELECT send('$queue', '$names')");
	return;
}

# Whether a sleeper is called, after one who looked in vain has told that nothing is left.
sub is_called
{
	my ($queue) = @_;

	query("SELECT 1 FROM queue.dequeue('$queue')");
	query("SELECT 1 FROM queue.dequeue('$queue')");
	return query("CALL queue.wait('$queue', '10 ms')");
}

query("SELECT queue.create('dead', '{\"dead_letter\": \"\"}')");

# ---- deleted by a transaction that has no slot, and has not ended

foreach my $end (qw(COMMIT ROLLBACK))
{
	my $queue = 'cancelled_' . lc $end;
	my $after = $end eq 'COMMIT' ? 'a2' : 'a1 a2';

	fresh($queue, '"backoff": "none"', 'a1 a2 b1');
	query("BEGIN; SELECT queue.cancel('$queue', id) FROM queues.$queue WHERE payload = '\"a1\"'; PREPARE TRANSACTION 'p'");
	is(query("SELECT take('$queue')"), 'b1', "$end of a cancel: prepared, it holds its key");
	is(is_called($queue), 'f', 'and nobody is called for it in vain');
	advance($node, '61 s');
	is(query("SELECT take('$queue')"), '', 'nor does it end by time');
	query("$end PREPARED 'p'");
	advance($node, '61 s');
	is(query("CALL queue.wait('$queue', '10 ms')"), 't', 'then the key is looked at');
	is(query("SELECT take('$queue')"), $after, 'and goes on');
}

fresh('came_back', '"backoff": "none"', 'a1 a2 b1');
is(query("SELECT take('came_back')"), 'a1 a2 b1', 'all are leased');
query("SELECT queue.nack(receipt('a1'))");
query("BEGIN; SELECT queue.cancel('came_back', id) FROM queues.came_back WHERE payload = '\"a1\"'; PREPARE TRANSACTION 'p'");
is(query("SELECT take('came_back')"), '', 'a cancel of what came back: prepared, it holds its key');
is(is_called('came_back'), 'f', 'and nobody is called for it in vain');
query("COMMIT PREPARED 'p'");
advance($node, '61 s');
is(query("SELECT take('came_back')"), 'a2', 'then the key goes on');

fresh('purged', '"backoff": "none"', 'a1 a2 b1');
my $purger = $node->background_psql('postgres');
$purger->query_safe('BEGIN');
$purger->query_safe("SELECT queue.purge('purged')");
is(query("SELECT take('purged')"), '', 'a purge that is open holds all keys');
is(is_called('purged'), 'f', 'and nobody is called for them in vain');
$purger->query_safe('ROLLBACK');
is(query("SELECT take('purged')"), 'a1 a2 b1', 'rolled back, it gives them free at once');
$purger->quit;

# Its slot is forgotten by a crash, and its key has a message that came back; the next of the key is on another page.
fresh('crashed', '"backoff": "none"', 'a1 ' . join(' ', map { "b$_" } 1 .. 200) . ' a2 a3');
query("INSERT INTO held SELECT payload #>> '{}', receipt FROM queue.dequeue('crashed', 1000)");
query("SELECT queue.nack(receipt('a3'))");
query("SELECT queue.release(receipt) FROM held WHERE payload IN ('a1', 'b1')");
query("BEGIN; SELECT queue.ack(receipt) FROM queue.dequeue('crashed') WHERE payload = '\"a1\"'; PREPARE TRANSACTION 'p'");
$node->stop('immediate');
$node->start;
is(query("SELECT count(*) FROM queue.dequeue('crashed', 1000, '1 h') WHERE key = 'a'"), '0', 'an ack that was prepared before a crash holds its key');
query("ROLLBACK PREPARED 'p'");
advance($node, '61 s');
is(query("SELECT take('crashed')"), 'a1 a2', 'rolled back, it is the first');

# ---- dead, and not written yet

fresh('blocks', '"max_attempts": 1, "on_dead": "block"', 'a1 a2 b1');
is(query("SELECT payload FROM queue.dequeue('blocks', 1, '10 s')"), '"a1"', 'the first of a is leased');
advance($node, '11 s');
is(query("SELECT take('blocks')"), 'b1', 'dead, it blocks its key before anybody has written that');

fresh('skips', '"max_attempts": 1', 'a1 a2');
my $late = query("SELECT receipt FROM queue.dequeue('skips', 1, '10 s')");
advance($node, '11 s');
is(query("SELECT take('skips')"), 'a2', 'one that skips is passed at once');
fails($node, "SELECT queue.extend('$late', '1 min')", 'QU001', 'then a late extend is lost');

fresh('extends', '"backoff": "fixed", "backoff_base": "1 h"', 'a1 a2');
$late = query("SELECT receipt FROM queue.dequeue('extends', 1, '10 s')");
advance($node, '11 s');
is(query("SELECT take('extends')"), '', 'one that waits for its retry holds its key');
isnt(query("SELECT queue.extend('$late', '6 h')"), '', 'and a late extend is good');
advance($node, '1 h');
is(query("SELECT take('extends')"), '', 'it holds the key again');
query("SELECT queue.ack('$late')");
is(query("SELECT take('extends')"), 'a2', 'until it is acked');

fresh('expires', '"backoff": "none"', '');
query("SELECT send('expires', 'a1', '30 s'), send('expires', 'a2')");
is(query("SELECT take('expires')"), 'a1 a2', 'both are leased');
query("SELECT queue.nack(receipt('a1'))");
advance($node, '31 s');
is(query("SELECT take('expires')"), 'a2', 'what came back and expired is passed at once');

# A crash forgets what nobody has written.
foreach my $on_dead (qw(skip block))
{
	fresh("forgets_$on_dead", qq("max_attempts": 1, "on_dead": "$on_dead"), 'a1 a2');
	query("SELECT 1 FROM queue.dequeue('forgets_$on_dead', 1, '10 s')");
}
advance($node, '11 s');
is(query("SELECT take('forgets_skip')"), 'a2', 'one that skips is passed');
query("SELECT queue.ack(receipt('a2'))");
is(query("SELECT take('forgets_block')"), '', 'one that blocks is not');
$node->stop('immediate');
$node->start;
is(query("SELECT take('forgets_skip')"), 'a1', 'a crash forgets its death, so it comes behind what has followed it');
is(query("SELECT take('forgets_block')"), 'a1 a2', 'where it blocked nothing has');

# ---- a key is unblocked

fresh('unblocks', '"on_dead": "block"', 'a1 a2');
query("SELECT queue.reject(receipt) FROM queue.dequeue('unblocks')");
fails($node, "BEGIN; SELECT queue.unblock('unblocks', 'a'); PREPARE TRANSACTION 'p'", '0A000', 'an unblock is not prepared');
is(query("SELECT take('unblocks')"), '', 'it has unblocked nothing');
is(query("SELECT queue.unblock('unblocks', 'a')"), 't', 'unblocked');
is(query("SELECT take('unblocks')"), 'a2', 'the key goes on');

# ---- a key is asked for

sub take_key
{
	my ($queue, $key) = @_;

	return query("SELECT payload #>> '{}' FROM queue.dequeue('$queue', 1, '10 s', options => '{\"key\": \"$key\"}')");
}

fresh('asked', '"max_attempts": 1', 'a1 b1 a2 a3');
is(take_key('asked', 'a'), 'a1', 'a key is asked for');
is(take_key('asked', 'a'), '', 'and held');
advance($node, '11 s');
is(take_key('asked', 'a'), 'a2', 'one that is dead, and not written, is passed');
is(take_key('asked', 'b'), 'b1', 'another key is where it was');
advance($node, '11 s');
is(query("SELECT take('asked')"), 'a3', 'and what nobody has asked for comes as well');

foreach my $end (qw(COMMIT ROLLBACK))
{
	my $queue = 'asked_' . lc $end;

	fresh($queue, '"backoff": "none"', 'a1 b1 a2 b2');
	query("BEGIN; SELECT queue.cancel('$queue', id) FROM queues.$queue WHERE payload = '\"a1\"'; PREPARE TRANSACTION 'p'");
	is(take_key($queue, 'a'), '', "$end of a cancel: prepared, it holds its key");
	is(take_key($queue, 'b'), 'b1', 'and no other one');
	query("$end PREPARED 'p'");
	advance($node, '61 s');
	is(take_key($queue, 'a'), $end eq 'COMMIT' ? 'a2' : 'a1', 'then the key goes on');
	is(take_key($queue, 'b'), 'b1', 'the other one as well');
}

# ---- the state of a key, and who has lost it

fresh('states', '"max_attempts": 1', 'a1 a2 a3');
$late = query("SELECT receipt FROM queue.dequeue('states', 1, '10 s')");
advance($node, '11 s');
query("SELECT queue.set_key_state('$late', '1')");
is(query("SELECT queue.get_key_state('$late')"), '1', 'what has run out sets a state while nobody has had the key since');
is(query("SELECT queue.set_key_state(receipt, '2'), queue.ack(receipt) FROM queue.dequeue('states')"), '|', 'another one has the key');
fails($node, "SELECT queue.set_key_state('$late', '3')", 'QU001', 'then it sets none');
fails($node, "SELECT queue.get_key_state('$late')", 'QU001', 'and reads none');
fails($node, "BEGIN; SELECT queue.ack('$late'); SELECT queue.set_key_state('$late', '3')", 'QU001', 'not even acked');
is(query("SELECT state FROM queue._key_state"), '2', 'the state is that of the last holder');
query("SELECT queue.ack('$late')");

# Prepared, with its message acked, over a crash.
query("BEGIN; SELECT queue.set_key_state(receipt, '4'), queue.ack(receipt) FROM queue.dequeue('states'); PREPARE TRANSACTION 'p'");
$node->stop('immediate');
$node->start;
query("SELECT send('states', 'a4')");
is(query("SELECT take('states')"), '', 'prepared, it holds the key after a crash');
query("COMMIT PREPARED 'p'");
advance($node, '61 s');
is(query("SELECT queue.get_key_state(receipt) FROM queue.dequeue('states')"), '4', 'and the next one has it');
query("SELECT queue.drop('states', true)");
is(query('SELECT count(*) FROM queue._key_state'), '0', 'it goes with its queue');

is(query('SELECT count(*) FROM queue.check()'), '0', 'the check finds nothing');
$node->stop;
done_testing();
