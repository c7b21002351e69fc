# What waits for its time is stored apart from the backlog: it is delivered at its time, it is in nobody's way,
# and its segments are emptied whole and used again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.reclaim_delay = 0\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;

	-- The time as the queue sees it.
	SELECT queue.create('clock');
	CREATE FUNCTION clock() RETURNS timestamptz LANGUAGE plpgsql AS
	$$ DECLARE
		now timestamptz;
	BEGIN
		INSERT INTO queues.clock (payload) VALUES ('0') RETURNING enqueued_at INTO now;
		PERFORM queue.pop('clock');
		RETURN now;
	END $$;

	-- The segments with the messages of each, in order of number.
	CREATE FUNCTION contents(name text) RETURNS text LANGUAGE plpgsql AS
	$$ DECLARE
		each record;
		part text;
		whole text[];
	BEGIN
		FOR each IN SELECT * FROM queue.segments WHERE queue = name AND state <> 'reserve' ORDER BY number LOOP
			EXECUTE format('SELECT string_agg(payload #>> ''{}'', '' '' ORDER BY id) FROM %s WHERE payload <> ''"fill"''', each.segment) INTO part;
			whole = whole || format('%s: %s', each.state, part);
		END LOOP;
		RETURN array_to_string(whole, ', ');
	END $$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub contents
{
	my ($queue) = @_;

	return query("SELECT contents('$queue')");
}

# Until the worker has made a segment for the next bucket.
sub await_reserve
{
	my ($queue) = @_;

	await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = '$queue' AND state = 'reserve'") or BAIL_OUT("$queue got no segment");
}

# Store a message when there is an empty segment for it.
sub put
{
	my ($queue, $payload, $at) = @_;

	await_reserve($queue);
	query("SELECT queue.enqueue('$queue', '\"$payload\"', deliver_at => $at)");
}

# So many messages of a kilobyte, acked: a queue is small as long as its segment is.
sub fill
{
	my ($queue, $n) = @_;

	query(qq{
		SELECT queue.enqueue('$queue', '"fill"', headers => jsonb_build_object('fill', (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 30) j))) FROM generate_series(1, $n) i;});
	# A batch may come without a page that the worker looks at just now.
	1 while query("SELECT count(queue.ack(receipt)) FROM queue.dequeue('$queue', $n)") > 0;
}

# A queue that is not small, and whose segment is half full, so that the worker has made the next one.
sub new_queue
{
	my ($queue, $options, $fill) = @_;

	query("SELECT queue.create('$queue', '$options')");
	fill($queue, $fill // 40);
	await_reserve($queue);
}

# All that is due, acked: the payloads, in order of delivery.
sub drain
{
	my ($queue) = @_;
	my @all;
	my $until = "NOT EXISTS (SELECT FROM queues.$queue WHERE state IN ('ready', 'failed') AND deliver_at <= clock())";

	for (1 .. 200)
	{
		my $some = query("SELECT payload #>> '{}' FROM queue.dequeue('$queue', 1000), queue.ack(receipt)");

		push(@all, split(/\n/, $some));
		last if $some eq '' && query("SELECT $until") eq 't';
	}
	return @all;
}

# ---- buckets ----

my %at = (
	# a minute's bucket is for less than eight minutes, four minutes' for the next
	minute => "(date_trunc('minute', clock()) + interval '4 min')",
	four => "(date_bin('4 min', clock() + interval '22 min', '2000-01-01 00:00+00'))");
# One moment for all.
$at{$_} = "timestamptz '" . query("SELECT $at{$_}") . "'" foreach keys %at;

new_queue('b', '{"segment_size": "64kB", "backoff": "none"}');
query("SELECT queue.enqueue('b', '\"r1\"')");
put('b', 'a1', "$at{minute}");
put('b', 'b1', "$at{minute} + interval '60 s'");
put('b', 'a2', "$at{minute} + interval '59.999999 s'");
put('b', 'c1', "$at{four}");
put('b', 'c2', "$at{four} + interval '239 s'");
put('b', 'd1', "$at{four} + interval '240 s'");
put('b', 'n1', "clock() + interval '5 s'");
put('b', 'n2', "clock() + interval '50 s'");
put('b', 'e1', "clock() + interval '80 years'");
put('b', 'r2', "clock() - interval '1 s'");
put('b', 'r3', "'-infinity'");
put('b', 'r4', "'1999-12-31'");
fails($node, "SELECT queue.enqueue('b', '1', deliver_at => 'infinity')", '22023', 'infinity is refused');
is(contents('b'), 'active: r1 r2 r3 r4, timed: a1 a2, timed: b1, timed: c1 c2, timed: d1, timed: n1 n2, timed: e1',
	'a segment for each bucket, what is ready is in the active one');

# what failed is with that which is due soon, or in its bucket
await_reserve('b');
my @receipts = split(/\n/, query("SELECT receipt FROM queue.dequeue('b', 4)"));
query("SELECT queue.nack('$receipts[0]', delay => '0 s')");
query("SELECT queue.nack('$receipts[1]', delay => '30 s')");
query("SELECT queue.nack('$receipts[2]', delay => interval '30 s' + ($at{minute} - clock()))");
query("SELECT queue.reject('$receipts[3]')");
is(contents('b'), 'active: , timed: a1 a2 r3, timed: b1, timed: c1 c2, timed: d1, timed: r1 n1 n2 r2, timed: e1',
	'failures are not at the end of the queue');
is(contents('b_dead'), 'active: r4', 'a dead letter is in the active segment');

# at the end of all time
put('b', 'x1', "'294276-12-30'");
put('b', 'x2', "'294276-12-31'");
advance($node, '1 s');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'b' AND state = 'sealed'", expected => '0'), 'no bucket ends before it begins');
put('b', 'x3', "'294276-12-29'");
like(contents('b'), qr/timed: x1 x2 x3$/, 'the last day has one segment');
query("DELETE FROM queues.b WHERE payload #>> '{}' LIKE 'x%'");

# at its time, and then the segments are emptied
advance($node, '6 s');
is(join(' ', sort(drain('b'))), 'n1 r1', 'what is due in five seconds comes after six, and the failed one');
advance($node, '60 s');
is(join(' ', sort(drain('b'))), 'n2 r2', 'a minute later');
advance($node, '241 s');
is(join(' ', sort(drain('b'))), 'a1 a2 b1 r3', 'two buckets of a minute');
ok(await($node, "SELECT contents('b')", expected => 'active: , timed: c1 c2, timed: d1, timed: , timed: e1, timed: '), 'their segments are empty, those of others are not');
advance($node, '26 min');
is(join(' ', sort(drain('b'))), 'c1 c2 d1', 'two of four minutes');
ok(await($node, "SELECT contents('b')", expected => 'active: , timed: , timed: e1, timed: '), 'theirs too');
advance($node, '82 years');
is(join(' ', drain('b')), 'e1', 'and after 80 years, which the clock counts by months of 30 days');
check_ok($node);
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# ---- a small queue ----

query(q{SELECT queue.create('s', '{"segment_size": "1MB"}')});
query("SELECT queue.enqueue('s', to_jsonb(n::text), delay => CASE WHEN n > 1 THEN interval '1 s' * 3 ^ n END) FROM generate_series(1, 19) n");
query("SELECT queue.nack(receipt) FROM queue.dequeue('s')");
is(contents('s'), 'active: ' . join(' ', 1 .. 19), 'a small queue keeps one segment, whatever it holds');
is(query("SELECT count(*) FROM queue.segments WHERE queue = 's'"), '1', 'and has no other');
fill('s', 100);
query("SELECT queue.enqueue('s', '\"20\"', delay => '1 h')");
put('s', '21', "clock() + interval '1 h'");
is(contents('s'), 'active: ' . join(' ', 1 .. 20) . ', timed: 21', 'when it has grown buckets begin');

# ---- many in one statement ----

new_queue('m', '{"segment_size": "64kB"}');
query("CREATE TABLE source AS SELECT n, (ARRAY['0 s', '20 s', '90 s', '5 min', '1 h', '3 d', '1 year', '500 years'])[n % 8 + 1]::interval AS delay FROM generate_series(0, 1999) n");
query("CREATE VIEW everything AS SELECT count(*), count(DISTINCT payload) AS different, sum(payload::int) FROM queues.m");
query("INSERT INTO queues.m (payload, delay) SELECT to_jsonb(n), delay FROM source");
query("SELECT count(*) FROM queue.enqueue_batch('m', ARRAY(SELECT to_jsonb(n + 2000) FROM source ORDER BY n), delay => '2 h')");
is(query('TABLE everything'), '4000|4000|' . (3999 * 2000), 'INSERT of many delays, and a batch');
my $copied = join('', map { "$_\t" . ('1 min', '10 min', '10 h', '10 d')[ $_ % 4 ] . "\n" } 4000 .. 4999);
query("COPY queues.m (payload, delay) FROM STDIN;\n$copied\\.\n");
is(query('TABLE everything'), '5000|5000|' . (4999 * 2500), 'COPY of many delays');

# what was rolled back is nowhere
query("BEGIN; INSERT INTO queues.m (payload, delay) SELECT to_jsonb(n), delay FROM source; ROLLBACK");
query("BEGIN; SAVEPOINT a; INSERT INTO queues.m (payload, delay) SELECT to_jsonb(n), delay + '3 min' FROM source; ROLLBACK TO a; "
	. "INSERT INTO queues.m (payload, delay) SELECT to_jsonb(n + 5000), '3 min' FROM source WHERE n < 10; COMMIT");
is(query('TABLE everything'), '5010|5010|' . (5009 * 2505), 'rolled back to a savepoint');
ok(await($node, "SELECT exact AND ready + delayed = 5010 FROM queue.stats WHERE queue = 'm'"), 'and counted as such');
is(scalar(drain('m')), 250, 'what is ready');
advance($node, '61 s');
is(scalar(drain('m')), 250 + 250, 'what is due in a minute');
advance($node, '10 min');
is(scalar(drain('m')), 500 + 10 + 250, 'in ten');
advance($node, '2 h');
is(scalar(drain('m')), 250 + 2000, 'in two hours');
advance($node, '120 years') for 1 .. 5;
is(scalar(drain('m')), 750 + 500, 'in 500 years');
is(query('TABLE everything'), '0|0|', 'and that was all');
check_ok($node);
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# ---- timers for ever ----

new_queue('r', '{"segment_size": "64kB"}');
my $pin;
my ($sent, $got, $early, $late) = (0, 0, 0, 0);
for my $minute (1 .. 60)
{
	if ($minute == 20)
	{
		$pin = $node->background_psql('postgres');
		$pin->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$pin->query_safe('SELECT txid_current()');
	}
	$sent += query(qq{
		INSERT INTO queues.r (payload, deliver_at) SELECT to_jsonb(at), at
		FROM clock() AS now, unnest(ARRAY['20 s', '90 s', '150 s', '7 min', '9 min']::interval[]) AS delay, LATERAL (SELECT now + delay) AS t (at);
		SELECT 5});
	advance($node, '1 min');
	my $now = query('SELECT clock()');
	my @due = drain('r');
	$got += @due;
	$early += query("SELECT count(*) FROM unnest('{" . join(',', map { "\"$_\"" } @due) . "}'::timestamptz[]) at WHERE at > clock()");
	$late += query("SELECT count(*) FROM queues.r WHERE deliver_at <= '$now'");
	ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'r' AND state = 'sealed' AND live = 0", expected => '0'), "minute $minute: what was sealed is empty") if $minute % 10 == 0;
}
is($early, 0, 'none came before its time');
is($late, 0, 'none was left behind');
advance($node, '10 min');
$got += drain('r');
is($got, $sent, 'each came once');
# until the last bucket has ended, too
advance($node, '5 min');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'r' AND state IN ('sealed', 'timed')", expected => '1'), 'only the bucket without an end is left');
cmp_ok(query("SELECT max(number) FROM queue.segments WHERE queue = 'r'"), '<=', 20, 'an hour of timers has used few segments again and again');
$pin->query_safe('COMMIT');
$pin->quit;
check_ok($node);

# the wall clock alone steps
put('r', 'w', "clock() + interval '10 min'");
query("SELECT queue.clock_advance('11 min', wall_only => true)");
is(join(' ', drain('r')), 'w', 'a step forward makes it due');
put('r', 'w', "clock() + interval '10 min'");
put('r', 'v', "clock() + interval '20 s'");
query("SELECT queue.clock_advance('-1 h', wall_only => true)");
is(join(' ', drain('r')), '', 'a step back does not');
advance($node, '62 min');
is(join(' ', sort(drain('r'))), 'v', 'it follows the wall clock');
advance($node, '10 min');
is(join(' ', drain('r')), 'w', 'both do');
advance($node, '5 min');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'r' AND state IN ('sealed', 'timed')", expected => '1'), 'and their segments are emptied');
check_ok($node);
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# ---- turns ----

query(q{SELECT queue.create('t', '{"segment_size": "1MB"}')});
query("INSERT INTO queues.t (payload) SELECT to_jsonb('b' || n) FROM generate_series(1, 100000) n");
put('t', 'due', "clock() + interval '10 s'");
my @head = split(/\|/, query("SELECT payload #>> '{}', receipt FROM queue.dequeue('t')"));
is($head[0], 'b1', 'the head of a backlog');
query("SELECT queue.nack('$head[1]', delay => '2 s')");
my ($second) = split(/\|/, query("SELECT receipt FROM queue.dequeue('t')"));
query("SELECT queue.nack('$second', delay => '0 s')");
advance($node, '11 s');
my @next = map { query("SELECT payload #>> '{}' FROM queue.dequeue('t'), queue.ack(receipt)") } 1 .. 8;
is(join(' ', sort(grep { /^(due|b1|b2)$/ } @next)), 'b1 b2 due', 'a timer and two retries come at once, past a backlog of 100000');
is(join(' ', grep { !/^(due|b1|b2)$/ } @next), 'b3 b4 b5 b6 b7', 'and the backlog in its order');

# what falls due has as much as it wants, and does not keep the backlog waiting
query("INSERT INTO queues.t (payload, delay) SELECT to_jsonb('d' || n), '10 s' FROM generate_series(1, 1000) n");
advance($node, '11 s');
@next = map { query("SELECT payload #>> '{}' FROM queue.dequeue('t'), queue.ack(receipt)") } 1 .. 40;
is(scalar(grep { /^d/ } @next), 20, 'every second call gets what is due');
is(join(' ', grep { /^b/ } @next), join(' ', map { "b$_" } 8 .. 27), 'and every other one the head of the backlog');
my @batches = map { query("SELECT count(*) FILTER (WHERE payload #>> '{}' LIKE 'd%'), count(*) FROM queue.dequeue('t', 50), queue.ack(receipt)") } 1 .. 4;
is(join(' ', sort(@batches)), '0|50 0|50 50|50 50|50', 'so it is with batches');
is(query("SELECT count(*) FROM queue.dequeue('t', 10000)"), '10000', 'where there is room for more a batch is full');
query("SELECT queue.drop('t', true)");

# ---- one that is ready behind many that are not ----

new_queue('d', '{"segment_size": "1MB"}', 600);
# until the bucket has a segment, the active one takes what is delayed; so the worker is waited for
put('d', 0, "clock() + interval '1 h'");
for my $part (0 .. 19)
{
	await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = 'd' AND state = 'reserve'", limit => 10);
	query("INSERT INTO queues.d (payload, delay) SELECT to_jsonb($part * 10000 + n), '1 h' FROM generate_series(1, 10000) n");
}
is(query("SELECT count(*) FROM queue.segments WHERE queue = 'd' AND state IN ('timed', 'sealed')") > 10 ? 'many' : 'few', 'many', 'many segments with what is delayed');

# Buffers that a dequeue has looked at; what the catalog needs was read before.
sub looked_at
{
	my ($n) = @_;
	my $plan = query(qq{
		SELECT FROM queue.dequeue('clock');
		SELECT queue.enqueue('d', '"ready"');
		EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT queue.ack(receipt) FROM queue.dequeue('d', $n);});

	$plan =~ s/^[^\[]*//;
	$plan = decode_json($plan)->[0]{Plan};
	is($plan->{'Actual Rows'} + 0, 1, "the ready one of $n");
	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}
cmp_ok(looked_at($_), '<', 500, "up to $_ are asked for: the delayed ones are not looked at") foreach 1, 1, 10, 10;

# one of them is found by its id
my $middle = query("SELECT id FROM queues.d WHERE payload = '100000'");
my $plan = query("SELECT queue.cancel('d', 0); EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT queue.cancel('d', $middle)");
$plan =~ s/^[^\[]*//;
$plan = decode_json($plan)->[0]{Plan};
cmp_ok($plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'}, '<', 800, 'few pages are looked at to cancel one of them');
is(query("SELECT count(*) FROM queues.d WHERE id = $middle"), '0', 'and it is gone');
is(query("SELECT queue.cancel('d', $middle)"), 'f', 'it can be cancelled once');

# nobody has looked at any page since the start, and the worker takes its time
my $total = query("SELECT count(*) FROM queues.d");
$node->append_conf('postgresql.conf', "queue.worker_interval = '600s'");
foreach my $n (1, 10)
{
	foreach my $turn (1, 2)
	{
		$node->restart;
		ok(await_worker($node, 'postgres', 1), 'the worker runs');
		# Also the turn of those that wait for their time.
		query("SELECT queue.enqueue('d', '\"ready\"'), queue.ack(receipt) FROM queue.dequeue('d')") if $turn == 2;
		cmp_ok(looked_at($n), '<', 500, "up to $n are asked for after a restart, turn $turn: few pages are looked at");
	}
}
is(query("SELECT count(*) FROM queues.d"), $total, 'the delayed ones are there');
advance($node, '61 min');
is(query("SELECT count(*) FROM queue.dequeue('d', 10000)"), '10000', 'they come when it is time');
query("SELECT queue.drop('d', true)");
$node->append_conf('postgresql.conf', "queue.worker_interval = '100ms'");
# The clock is right again after a restart.
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs');

# ---- a crash ----

new_queue('k', '{"segment_size": "64kB"}');
query("SELECT queue.enqueue('k', '\"r1\"')");
foreach my $delay ('30 s', '5 min', '1 h', '3 d')
{
	put('k', "$delay.$_", "clock() + interval '$delay'") for 1 .. 2;
}
is(contents('k'), 'active: r1, timed: 30 s.1 30 s.2, timed: 5 min.1 5 min.2, timed: 1 h.1 1 h.2, timed: 3 d.1 3 d.2', 'before the crash');
foreach my $how ('immediate', 'fast')
{
	$node->stop($how);
	$node->start;
	is(contents('k'), 'active: r1, sealed: 30 s.1 30 s.2, timed: 5 min.1 5 min.2, timed: 1 h.1 1 h.2, timed: 3 d.1 3 d.2', "after stop $how the active segment is the same");
}
# a segment that has only what waits is not the active one, if there is another
query("SELECT queue.ack(receipt) FROM queue.dequeue('k')");
await_reserve('k');
$node->stop('immediate');
$node->start;
query("SELECT queue.enqueue('k', '\"r2\"')");
like(contents('k'), qr/active: r2(,|$)/, 'what is ready is by itself');
is(join(' ', drain('k')), 'r2', 'none before its time');
advance($node, '31 s');
is(join(' ', sort(drain('k'))), '30 s.1 30 s.2', 'those of half a minute');
advance($node, '5 min');
is(join(' ', sort(drain('k'))), '5 min.1 5 min.2', 'of five minutes');

# what a dump brings back
my $path = $node->basedir;
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$path/k.dump", 'postgres' ], 'pg_dump');
query('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', 'copy', "$path/k.dump" ], 'pg_restore');
advance($node, '1 h');
is(join(' ', sort(drain('k'))), '1 h.1 1 h.2', 'of an hour');
is($node->safe_psql('copy', "SELECT string_agg(payload #>> '{}', ' ' ORDER BY id) FROM queue.dequeue('k', 10)"), '1 h.1 1 h.2', 'those of the dump too');
advance($node, '3 d');
is(join(' ', sort(drain('k'))), '3 d.1 3 d.2', 'of three days');
is($node->safe_psql('copy', "SELECT string_agg(payload #>> '{}', ' ' ORDER BY id) FROM queue.dequeue('k', 10) WHERE payload #>> '{}' LIKE '3%'"), '3 d.1 3 d.2', 'those of the dump too');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'k' AND state = 'sealed'", expected => '0'), 'all their segments are emptied');
ok(await($node, "SELECT bool_and(exact) FROM queue.stats", database => $_), "counts of $_ are exact again") foreach 'postgres', 'copy';
check_ok($node, 'postgres', 'copy');
$node->safe_psql('postgres', 'DROP DATABASE copy');

# ---- somebody has locked the segment that failures go to ----

new_queue('l', '{"segment_size": "64kB", "backoff": "none"}');
put('l', 'later', "clock() + interval '50 s'");
my $segment = query("SELECT segment FROM queue.segments WHERE queue = 'l' AND state = 'timed'");
my $locker = $node->background_psql('postgres');
$locker->query_safe("BEGIN; LOCK TABLE $segment IN SHARE MODE");
query("SELECT queue.enqueue('l', '\"failed\"')");
query("BEGIN; SELECT count(*) FROM queue.dequeue('l'); ROLLBACK");
ok(await($node, "SELECT count(*) FROM queue.leases WHERE queue = 'l'", expected => '0', limit => 20), 'a failure is written nevertheless');
$locker->query_safe('COMMIT');
$locker->quit;
is(contents('l'), 'active: failed, timed: later', 'into the active one');
check_ok($node);
unlike(slurp_file($node->logfile), qr/lock timeout/, 'the worker did not wait');

# ---- without a worker ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is(worker_pid($node), '', 'no worker');
query(q{SELECT queue.create('w', '{"segment_size": "64kB"}')});
fill('w', 100);
query("INSERT INTO queues.w (payload, delay) SELECT to_jsonb(n), (n % 4) * interval '2 min' FROM generate_series(1, 400) n");
is(query("SELECT count(*) FROM queue.segments WHERE queue = 'w'"), '1', 'there is one segment');
is(scalar(drain('w')), 100, 'what is ready');
foreach my $time (1 .. 3)
{
	advance($node, '2 min');
	is(scalar(drain('w')), 100, "at the time of the next, $time");
}
is(query("SELECT count(*) FROM queues.w"), '0', 'and that was all');
# buckets that nobody seals
query("SELECT queue.enqueue('k', to_jsonb(n::text), delay => n * interval '1 min') FROM generate_series(1, 20) n");
is(query("SELECT count(*) FROM queues.k"), '20', 'stored where buckets were before');
advance($node, '21 min');
is(join(' ', sort { $a <=> $b } drain('k')), join(' ', 1 .. 20), 'all come');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
