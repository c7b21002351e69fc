# With on_dead = dead_rest the messages behind a dead one die too, whatever comes between: crashes, locks,
# prepared and open transactions, an unblock, a dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "max_prepared_transactions = 10\nqueue.reclaim_delay = 0\nqueue.worker_interval = '100ms'\nqueue.recheck_interval = '50ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('line', '{"ordered": true, "backoff": "none", "on_dead": "dead_rest", "segment_size": "64kB"}');
	CREATE FUNCTION reject(letter text) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(payload ->> 'n' || coalesce(queue.reject(receipt)::text, ''), ' ') FROM queue.dequeue('line') WHERE key = letter $$;
});
make_send_and_drain($node);
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query, $database) = @_;

	return $node->safe_psql($database // 'postgres', $query);
}

# "a1..a9" for each key of a list of names, if all of it is in order and complete.
sub told
{
	my %came;

	foreach my $name (split /,/, shift =~ s/[{}]//gr)
	{
		my ($of, $n) = $name =~ /^(\D)(\d+)$/;

		push @{ $came{$of} }, $n;
	}
	return join ' ', map {
		my @ns = @{ $came{$_} };
		my $whole = join(',', @ns) eq join(',', $ns[0] .. $ns[-1]);

		$whole ? "$_$ns[0]..$_$ns[-1]" : "$_ out of order: @ns";
	} sort keys %came;
}

sub drained
{
	return told(query('CALL drain()', @_));
}

# What is in the dead-letter queue, by id; and it is emptied.
sub buried
{
	my ($database) = @_;
	my $got = query("SELECT coalesce(array_agg(payload ->> 'n' ORDER BY id), '{}') FROM queues.line_dead", $database);

	query("SELECT queue.purge('line_dead')", $database);
	return told($got);
}

sub await_rest
{
	my ($name, $database) = @_;

	ok(await($node, "SELECT count(*) = 0 FROM queue.blocked_keys('line')", database => $database), $name);
	return;
}

# A session that keeps the worker out of the segment with the last message of a key, when that is full.
sub lock_last
{
	my ($of) = @_;
	my $session = $node->background_psql('postgres');
	my $segment;

	query(q{CREATE TABLE place (segment regclass, id bigint);
		DO $$ DECLARE s regclass; BEGIN
			FOR s IN SELECT segment FROM queue.segments WHERE queue = 'line' LOOP
				EXECUTE format('INSERT INTO place SELECT %L, max(id) FROM %s WHERE key = %L', s, s, '} . $of . q{');
			END LOOP;
		END $$});
	$segment = query('SELECT segment FROM place WHERE id IS NOT NULL ORDER BY id DESC LIMIT 1');
	query('DROP TABLE place');
	query("SELECT send('z', 1, 100)")
		while query("SELECT count(*) FROM queue.segments WHERE segment = '$segment'::regclass AND state = 'active'") eq '1';
	query("DELETE FROM queues.line WHERE key = 'z'");
	$session->query_safe("BEGIN; LOCK TABLE $segment IN SHARE MODE");
	return $session;
}

# ---- many messages in many segments; other keys go on

query("SELECT send('a', 1, 1)");
query("SELECT send('a', 2 + 300 * i, 301 + 300 * i), send('b', 1 + 150 * i, 150 + 150 * i) FROM generate_series($_, $_) i") for (0 .. 9);
cmp_ok(query("SELECT count(*) FROM queue.segments WHERE queue = 'line' AND state = 'sealed'"), '>=', 3, 'the backlog has many segments');
is(query("SELECT reject('a')"), 'a1', 'the first of a dies');
query("SELECT send('a', 3002, 3010)");
await_rest('the rest is moved');
is(drained(), 'a3002..a3010 b1..b1500', 'what came later is delivered, and other keys');
is(query("SELECT total_dead || ' ' || dead FROM queue.stats WHERE queue = 'line'"), '3001 3001', 'all the dead are counted');
is(query("SELECT count(DISTINCT last_error) || ' ' || min(last_error) FROM queues.line_dead WHERE id > (SELECT min(id) FROM queues.line_dead)"),
	'1 message ' . query('SELECT min(id) FROM queues.line_dead') . ' of the same key died', 'each says why');
is(buried(), 'a1..a3001', 'the dead are in order');

# ---- two keys at a time, and values out of line

query("SELECT send('a', 1, 30, 30000), send('b', 1, 30), send('c', 1, 30)");
query("SELECT reject('a'), reject('b')");
await_rest('two rests are moved');
is(buried(), 'a1..a30 b1..b30', 'both are dead, and nothing else');
is(drained(), 'c1..c30', 'which is delivered');

# ---- a crash in the middle

query("SELECT send('a', 1, 1000)");
my $locker = lock_last('a');
is(query("SELECT reject('a')"), 'a1', 'the first of a dies');
ok(await($node, "SELECT count(*) > 100 FROM queues.line_dead"), 'some of the rest is moved');
query("SELECT send('a', 1001, 1010), send('b', 1, 5)");
is(query("SELECT key || ' ' || on_dead FROM queue.blocked_keys('line')"), 'a dead_rest', 'the key is shown with what becomes of it');
is(drained(), 'b1..b5', 'and nothing of it is delivered');
$node->stop('immediate');
$node->start;
await_rest('after a crash the move goes on');
is(drained(), 'a1001..a1010', 'what came later is delivered');
is(buried(), 'a1..a1000', 'the rest is dead, once each');
eval { $locker->quit };

# Before anything was moved, and with nobody who asks for messages.
query("SELECT send('a', 1, 100)");
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is(query("SELECT reject('a')"), 'a1', 'the first of a dies, and there is no worker');
query("SELECT send('a', 101, 105)");
$node->stop('immediate');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->start;
await_rest('after a crash a worker moves the rest');
is(buried(), 'a1..a100', 'it is dead');
is(drained(), 'a101..a105', 'what came later is delivered');

# ---- unblocked in the middle

query("SELECT send('a', 1, 1000)");
$locker = lock_last('a');
is(query("SELECT reject('a')"), 'a1', 'the first of a dies');
ok(await($node, "SELECT count(*) > 100 FROM queues.line_dead"), 'some of the rest is moved');
is(query("SELECT queue.unblock('line', 'a')"), 't', 'the key is unblocked');
$locker->query_safe('COMMIT');
$locker->quit;
my $came = drained();
like($came, qr/^a[0-9]+\.\.a1000$/, 'what was not moved is delivered, in order');
my ($from) = $came =~ /^a([0-9]+)/;
is(buried(), 'a1..a' . ($from - 1), 'and only the others are dead');

# One that has not committed stops the move, and that of no other queue; rolled back it ends nothing.
query("SELECT send('a', 1, 20)");
query("SELECT queue.create('other', '{\"ordered\": true, \"on_dead\": \"dead_rest\", \"dead_letter\": \"\"}')");
query("SELECT queue.enqueue('other', to_jsonb(n), key => 'k') FROM generate_series(1, 3) n");
my $unblocker = $node->background_psql('postgres');
$unblocker->query_safe('BEGIN');
$unblocker->query_safe("SELECT queue.unblock('line', 'a')");
is(query("SELECT reject('a')"), 'a1', 'one dies while somebody unblocks');
query("SELECT queue.reject(receipt) FROM queue.dequeue('other')");
ok(await($node, "SELECT count(*) = 0 FROM queue.blocked_keys('other')"), 'a rest of another queue is moved');
is(query("SELECT count(*) FROM queues.line_dead"), '1', 'but not that of this one');
$unblocker->query_safe('ROLLBACK');
$unblocker->quit;
await_rest('rolled back, it is moved');
is(buried(), 'a1..a20', 'and dead');
is(query('SELECT count(*) FROM queues.other'), '0', 'in the other queue nothing is left');

# ---- an ack in the rest that is prepared

foreach my $end (qw(COMMIT ROLLBACK))
{
	query("SELECT send('a', 1, 9)");
	query("CREATE TABLE held AS SELECT payload ->> 'n' AS n, receipt FROM queue.dequeue('line', 3, '1 h')");
	query("BEGIN; SELECT queue.ack(receipt) FROM held WHERE n = 'a3'; PREPARE TRANSACTION 'p'");
	query("SELECT queue.ack(receipt) FROM held WHERE n = 'a1'");
	query("SELECT queue.reject(receipt) FROM held WHERE n = 'a2'");
	query("SELECT send('a', 10, 12)");
	ok(await($node, "SELECT count(*) = 7 FROM queues.line_dead"), "$end: what is not held is moved");
	is(drained(), '', 'the prepared one holds the key');
	query("$end PREPARED 'p'");
	await_rest('until it has ended');
	is(drained(), 'a10..a12', 'what came later is delivered');
	is(join(' ', split(/,/, query("SELECT string_agg(payload ->> 'n', ',' ORDER BY id) FROM queues.line_dead"))),
		$end eq 'COMMIT' ? 'a2 a4 a5 a6 a7 a8 a9' : 'a2 a3 a4 a5 a6 a7 a8 a9', 'the dead are those that were not acked');
	query("SELECT queue.purge('line_dead')");
	query('DROP TABLE held');
}

# The same, when a crash has forgotten who holds it.
query("SELECT send('a', 1, 9)");
query("CREATE TABLE held AS SELECT payload ->> 'n' AS n, receipt FROM queue.dequeue('line', 3, '1 h')");
query("BEGIN; SELECT queue.ack(receipt) FROM held WHERE n = 'a3'; PREPARE TRANSACTION 'p'");
query("SELECT queue.reject(receipt) FROM held WHERE n = 'a1'");
$node->stop('immediate');
$node->start;
ok(await($node, "SELECT count(*) = 8 FROM queues.line_dead"), 'after a crash what is not held is moved');
is(query("SELECT count(*) FROM queue.blocked_keys('line')"), '1', 'and the key is blocked');
query("ROLLBACK PREPARED 'p'");
await_rest('until the prepared one has ended');
is(buried(), 'a1..a9', 'all of them are dead');
query('DROP TABLE held');

# ---- what an open transaction has stored before the death holds nobody up, and is not torn apart

query("SELECT send('a', 1, 3)");
my $producer = $node->background_psql('postgres');
$producer->query_safe('BEGIN');
$producer->query_safe("SELECT send('a', 100, 101)");
query("SELECT send('a', 4, 5)");
is(query("SELECT reject('a')"), 'a1', 'the first of a dies');
$producer->query_safe("SELECT send('a', 102, 103)");
await_rest('the rest is moved without the open transaction');
$producer->query_safe('COMMIT');
$producer->quit;
is(drained(), 'a100..a103', 'all that it stored is delivered');
is(buried(), 'a1..a5', 'what had committed is dead');

# Nor is one that ends while the worker is on its way from one of its messages to the other: there it is kept
# from what it needs for the message between them.
query("SELECT send('a', 1, 1)");
$producer = $node->background_psql('postgres');
$producer->query_safe('BEGIN');
$producer->query_safe("SELECT send('a', 2, 2)");
query("SELECT send('a', 3, 3)");
$producer->query_safe("SELECT send('a', 4, 4)");
my $index = query("SELECT i.indexrelid::regclass FROM queue.segments s JOIN pg_class c ON c.oid = s.segment JOIN pg_index i ON i.indrelid = c.reltoastrelid
	WHERE s.queue = 'line' AND s.state = 'active'");
$locker = $node->background_psql('postgres');
$locker->query_safe("BEGIN; REINDEX INDEX $index");
query("SELECT reject('a')");
ok(await($node, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)'), 'the worker is on its way');
$producer->query_safe('COMMIT');
$producer->quit;
$locker->query_safe('COMMIT');
$locker->quit;
await_rest('the rest is moved');
is(drained(), '', 'nothing is delivered');
is(buried(), 'a1..a4', 'all that was stored is dead, that of the open transaction too');

# ---- a dead letter of another queue does not die again

query(q{SELECT queue.create('grave', '{"ordered": true, "on_dead": "dead_rest", "dead_letter": "line_dead"}');
	SELECT queue.alter('line', '{"dead_letter": "grave"}')});
query("SELECT send('a', 1, 4)");
query(q{SELECT queue.enqueue('grave', '{"n": "a0"}', key => 'a')});
query("SELECT reject('a')");
await_rest('the rest is moved');
is(told(query("SELECT array_agg(payload ->> 'n' ORDER BY id) FROM queues.grave WHERE payload ->> 'n' <> 'a0'")), 'a1..a4', 'it is in another ordered queue');
is(query("SELECT payload ->> 'n' || count(*) OVER () FROM queue.dequeue('grave')"), 'a11', 'the first of the key comes first');
is(query(q{SELECT queue.purge('grave', '{"states": ["ready", "leased", "delayed", "failed"]}') > 0}), 't', 'purged');
query("SELECT queue.alter('line', '{\"dead_letter\": null}')");

# ---- a dump between death and move, restored while a worker looks on

$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
query("SELECT send('a', 1, 400), send('b', 1, 3)");
query("SELECT reject('a')");
query("SELECT send('a', 401, 405)");
my $dump = $node->basedir . '/dump';

$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
query('CREATE DATABASE copy');
my ($contents) = run_command([ 'pg_restore', '-l', $dump ]);
my $list = $node->basedir . '/list';

# Catalog and sequences, with views and tables; later the rows; at last the triggers.
foreach my $part (0, 1)
{
	PostgreSQL::Test::Utils::append_to_file("$list$part", join "\n", grep { /^[0-9]/ && $part == / TABLE DATA queues / } split /\n/, $contents);
}
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), '--section=pre-data', '--section=data', '-L', "${list}0", $dump ], 'restored without the rows');
is(query('SELECT count(*) FROM queues.line', 'copy'), '0', 'the queue is empty so far');
query(q{
	SELECT queue.create('probe', '{"ordered": true, "on_dead": "dead_rest", "dead_letter": ""}');
	SELECT queue.enqueue('probe', to_jsonb(n), key => 'k') FROM generate_series(1, 2) n;
	SELECT queue.reject(receipt) FROM queue.dequeue('probe')}, 'copy');
ok(await($node, "SELECT count(*) = 0 FROM queue.blocked_keys('probe')", database => 'copy'), 'the worker of the copy is there');
is(query("SELECT count(*) FROM queue.blocked_keys('line')", 'copy'), '1', 'it waits for the end of the restore');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), '--section=data', '-L', "${list}1", $dump ], 'restored with the rows');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), '--section=post-data', $dump ], 'restored with the triggers');
foreach my $database (qw(postgres copy))
{
	await_rest("the rest is moved in $database", $database);
	is(drained($database), 'a401..a405 b1..b3', 'what came later is delivered');
	is(buried($database), 'a1..a400', 'the rest is dead');
}
check_ok($node, 'postgres', 'copy');

$node->stop;
done_testing();
