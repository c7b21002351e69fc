# A relay in the server: what it delivers, how it is stopped, what it leaves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main');
$node->start;
my $folder = PostgreSQL::Test::Utils::tempdir();
my $file = "$folder/events.jsonl";

$node->safe_psql('postgres', qq{
	CREATE EXTENSION queue;
	CREATE EXTENSION queue_file;
	CREATE SERVER events FOREIGN DATA WRAPPER queue_file OPTIONS (path '$file');
	SELECT queue.create('q', '{"ordered": true, "backoff": "none"}');
	SELECT queue.create_relay('r', 'q', 'events');
});

# Lines of the file, decoded.
sub lines
{
	return () unless -e $file;
	return map { decode_json($_) } split /\n/, slurp_file($file);
}

sub delivered
{
	my ($n, $name) = @_;

	ok(await($node, "SELECT backlog = 0 AND held = 0 AND delivered >= $n FROM queue.relays"), $name);
}

# Whether numbers of each key come in order, once repeated ones are left out.
sub in_order
{
	my (%last, %seen);

	foreach my $line (lines())
	{
		next if $seen{$line->{id}}++;
		my $number = $line->{data}{n};
		return 0 if $number <= ($last{$line->{key}} // 0);
		$last{$line->{key}} = $number;
	}
	return 1;
}

# delivered after commit, never what was rolled back, in the order of keys
$node->safe_psql('postgres', q{
	INSERT INTO queues.q (key, payload) SELECT 'k' || n % 7, jsonb_build_object('n', n) FROM generate_series(1, 5000) n;
	BEGIN; SELECT queue.enqueue('q', '{"n": 0, "rolled": "back"}'); ROLLBACK;
});
delivered(5000, 'all are delivered');
my @lines = lines();
is(scalar @lines, 5000, 'once each');
is(scalar(grep { $_->{data}{rolled} } @lines), 0, 'none that was rolled back');
ok(in_order(), 'in the order of keys');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queues.q'), '0', 'and acked');
is($lines[0]{headers}{'ce-source'}, '/queue/q', 'as CloudEvents');
ok(await($node, q{SELECT count(*) FILTER (WHERE state = 'idle' AND xact_start IS NULL AND backend_xmin IS NULL) = 1 FROM pg_stat_activity WHERE backend_type = 'queue relay'}),
	'the worker is idle, without a transaction');

# pause and resume
$node->safe_psql('postgres', "SELECT queue.pause_relay('r')");
ok(await($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay'", expected => '0'), 'a paused relay has no process');
$node->safe_psql('postgres', q{SELECT queue.enqueue('q', '{"n": 6000}', key => 'k1')});
is($node->safe_psql('postgres', 'SELECT state, backlog FROM queue.relays'), 'paused|1', 'and leaves messages');
$node->safe_psql('postgres', "SELECT queue.resume_relay('r')");
delivered(5001, 'resumed it delivers');

# options are picked up, the log is written
$node->safe_psql('postgres', q{SELECT queue.alter_relay('r', '{"log": true, "target": "t.{key}", "format": "plain"}')});
$node->safe_psql('postgres', q{SELECT queue.enqueue('q', '{"n": 7000}', key => 'k1')});
ok(await($node, "SELECT count(*) FROM queue.relay_log", expected => '1'), 'what was confirmed is logged');
is($node->safe_psql('postgres', "SELECT DISTINCT relay, queue, target, attempt, answer FROM queue.relay_log"), 'r|q|t.k1|1|written', 'as it was');
delivered(5002, 'with the new options');
is((lines())[-1]{target}, 't.k1', 'the target is new');
ok(!exists((lines())[-1]{headers}{'ce-id'}), 'the format too');

# one that cannot be sent dies, others go on; what comes after a change is sent by the new rules
$node->safe_psql('postgres', q{
	SELECT queue.alter_relay('r', '{"target": "{headers.topic}"}');
	SELECT queue.enqueue('q', '{"n": 8000}', key => 'k1');
	SELECT queue.enqueue('q', '{"n": 8001}', key => 'k1', headers => '{"topic": "there"}');
});
ok(await($node, "SELECT count(*) FROM queues.q", expected => '0'), 'both are gone');

# SIGTERM: the worker drains, and is started again
my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue relay'");
kill 'TERM', $pid;
ok(await($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay' AND pid <> $pid", expected => '1'), 'a worker that was ended is started again');

# a full stop under load loses nothing, and repeats nothing
$node->safe_psql('postgres', q{
	SELECT queue.alter_relay('r', '{"target": null, "format": null}');
	INSERT INTO queues.q (key, payload) SELECT 'k' || n % 7, jsonb_build_object('n', n + 10000) FROM generate_series(1, 20000) n;
});
$node->restart;
ok(await($node, "SELECT count(*) FROM queues.q", expected => '0'), 'all are delivered after a restart');
my %times;
$times{$_->{id}}++ foreach lines();
my @new = grep { $_->{data}{n} > 10000 } lines();
is(scalar(@new), 20000, 'a stop that waits for what is in flight repeats nothing');
ok(in_order(), 'in the order of keys');

# a crash under load loses nothing
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->reload;
$node->safe_psql('postgres', q{INSERT INTO queues.q (key, payload) SELECT 'k' || n % 7, jsonb_build_object('n', n + 50000) FROM generate_series(1, 20000) n});
$pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue relay'");
kill 'KILL', $pid if $pid;
ok(await($node, "SELECT count(*) FROM queues.q", expected => '0'), 'all are delivered after a crash');
my %numbers = map { $_->{data}{n} => 1 } lines();
is(scalar(grep { $_ > 50000 } keys %numbers), 20000, 'none is lost');
ok(in_order(), 'in the order of keys');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queues.q_dead'), '1', 'no failure was counted');

# what is committed asynchronously is on disk before it leaves
$node->safe_psql('postgres', q{
	ALTER SYSTEM SET wal_writer_delay = '10s';
	SELECT pg_reload_conf();
});
$node->safe_psql('postgres', q{
	SET synchronous_commit = off;
	SELECT queue.enqueue('q', '{"n": 80000}', key => 'late');
});
ok(await($node, "SELECT count(*) FROM queues.q", expected => '0'), 'a message of an asynchronous commit is delivered');
my ($late) = grep { $_->{key} eq 'late' } lines();
ok($late, 'it left');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT last_value >= " . ($late->{id} =~ /^(\d+)/)[0] . " FROM queue.message_id"), 't', 'its commit outlived a crash');

# the log is dropped whole by time, and not before
$node->safe_psql('postgres', q{
	ALTER SYSTEM SET queue.relay_log_retention = '2min';
	SELECT pg_reload_conf();
});
my $last = $node->safe_psql('postgres', 'SELECT max(turn) FROM queue._relay_log_turn');

sub next_turn
{
	my ($by, $name) = @_;

	advance($node, $by);
	$last++;
	ok(await($node, 'SELECT max(turn) FROM queue._relay_log_turn', expected => $last), $name);
}

sub logged
{
	my ($n, $name) = @_;
	my $id = $node->safe_psql('postgres', qq{SELECT queue.enqueue('q', '{"n": $n}', key => 'log')});

	ok(await($node, "SELECT count(*) FROM queue.relay_log WHERE message = $id", expected => '1'), $name);
	return $id;
}

sub left
{
	return $node->safe_psql('postgres', 'SELECT string_agg(message::text, chr(32) ORDER BY message) FROM queue.relay_log WHERE message >= ' . shift);
}

next_turn('1000 s', 'a turn of the log begins');
my $first = logged(90000, 'one is in the log');
advance($node, '40 s');
my $second = logged(90001, 'another one too');
next_turn('40 s', 'the next turn begins');
my $third = logged(90002, 'and has one');
next_turn('70 s', 'the turn after that begins');
is(left($first), "$first $second $third", 'all of them are kept');
next_turn('70 s', 'and another one');
is(left($first), $third, 'which empties the table of the first');
next_turn('70 s', 'and the last one');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.relay_log'), '0', 'that leaves nothing');

# the relay is dropped
$node->safe_psql('postgres', "SELECT queue.drop_relay('r')");
ok(await($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay'", expected => '0'), 'a dropped relay has no process');
check_ok($node);
$node->stop;
done_testing();
