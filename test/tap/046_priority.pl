# Priorities: one urgent message is found behind many others, before and after a restart; nothing starves with aging;
# messages that had to be stored with others are delivered by their own priority.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.reclaim_delay = 0\nqueue.worker_interval = '100ms'\nmax_prepared_transactions = 2");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION queue');
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

# Which come next, as "priority:payload", settled at once.
sub pop
{
	my ($queue, $n) = @_;

	return query("SELECT string_agg(coalesce(priority, 4) || ':' || (payload #>> '{}'), ' ') FROM queue.pop('$queue', $n)");
}

# How many segments are for a priority.
sub of_priorities
{
	my ($queue) = @_;

	return query("SELECT count(*) FROM queue.segments WHERE queue = '$queue' AND state = 'priority'");
}

sub await_reserve
{
	my ($queue) = @_;

	ok(await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = '$queue' AND state = 'reserve'", limit => 10), "$queue: the worker has made a segment")
		or diag(query("SELECT number, state, size, live, priorities FROM queue.segments WHERE queue = '$queue'"));
}

sub states
{
	my ($queue) = @_;

	return query("SELECT string_agg(state, ' ' ORDER BY number) FROM queue.segments WHERE queue = '$queue' AND state <> 'reserve'");
}

# ----- behind many, before and after a restart

query(q{
	SELECT queue.create('deep', '{"segment_size": "64 kB", "priority_mode": "strict"}');
	SELECT queue.enqueue_batch('deep', array_agg(to_jsonb(repeat('x', 200)))) FROM generate_series(1, 5000);
});
await_reserve('deep');
query(q{SELECT queue.enqueue('deep', '"urgent"', priority => 9)});
is(of_priorities('deep'), 1, 'it has a segment of its own');
# A batch that passes over a page that the worker looks at goes on to lower priorities.
$node->append_conf('postgresql.conf', "queue.worker_interval = '600s'");
$node->restart;
is(main::pop('deep', 1), '9:urgent', 'the urgent one comes first after a restart');
is(query("SELECT queue.enqueue('deep', '\"another\"', priority => 9) IS NOT NULL"), 't', 'another one');
is(of_priorities('deep'), 1, 'which goes to the same segment as before the restart');
query(q{SELECT queue.enqueue('deep', '"low"', priority => 0)});
is(main::pop('deep', 1), '9:another', 'it comes first');
is(query("SELECT count(*) FROM queue.pop('deep', 5000)"), '5000', 'then the others');
is(main::pop('deep', 10), '0:low', 'and what is low at the end');
is(main::pop('deep', 10), '', 'nothing is left');
$node->append_conf('postgresql.conf', "queue.worker_interval = '100ms'");
$node->reload;

# ----- a crash with leases and retries

query(q{
	SELECT queue.create('crash', '{"priority_mode": "strict", "backoff": "none"}');
	SELECT queue.enqueue('crash', to_jsonb(n), priority => n) FROM generate_series(0, 9) n;
});
query(q{SELECT queue.nack(receipt) FROM queue.dequeue('crash', 3, '1 h')});
query(q{SELECT count(*) FROM queue.dequeue('crash', 5, '1 h')});
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', q{SELECT exact FROM queue.stats WHERE queue = 'crash'}), 'all is counted after a crash');
is(main::pop('crash', 10), '9:9 8:8 7:7 6:6 5:5 4:4 3:3 2:2 1:1 0:0', 'all come in order after a crash');

# ----- others than the first row of a segment tells, before all is counted

query(q{SELECT queue.create('first', '{"priority_mode": "strict"}')});
query(q{SELECT queue.enqueue('first', '"nine"', priority => 9) FROM generate_series(1, 2)});
query(q{SELECT queue.enqueue('first', to_jsonb(n)) FROM generate_series(1, 20) n});
query(q{BEGIN; SELECT queue.enqueue('first', '"open"'); PREPARE TRANSACTION 'uncounted'});
$node->stop('immediate');
$node->start;
is(query(q{SELECT count(*) FROM queue.pop('first', 100)}), '22', 'all of a queue can be had before it is counted');
query(q{ROLLBACK PREPARED 'uncounted'});

# ----- without a segment of their own

query(q{SELECT queue.create('mixed', '{"priority_mode": "strict"}')});
query(q{
	SELECT queue.enqueue('mixed', to_jsonb(n), priority => n % 10) FROM generate_series(0, 29) n;
});
unlike(states('mixed'), qr/^active( priority){9}$/, 'one transaction had no segments for all of them');
is(main::pop('mixed', 30),
	join(' ', map { my $p = 9 - $_; map { "$p:" . ($_ * 10 + $p) } 0 .. 2 } 0 .. 9), 'they come in order all the same');
ok($node->poll_query_until('postgres',
		q{SELECT count(*) > 0 FROM queue.segments WHERE queue = 'mixed' AND state = 'reserve'}), 'the worker makes segments');
is(query(q{SELECT bool_and(priorities = '{}') FROM queue.segments WHERE queue = 'mixed' AND state = 'reserve'}), 't', 'of no priority yet');
query(q{SELECT queue.enqueue('mixed', to_jsonb(n), priority => n % 10) FROM generate_series(0, 29) n});
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT exact FROM queue.stats WHERE queue = 'mixed'}), 'all is counted');
is(main::pop('mixed', 30),
	join(' ', map { my $p = 9 - $_; map { "$p:" . ($_ * 10 + $p) } 0 .. 2 } 0 .. 9), 'and in order after a restart');

# the same while a prepared transaction keeps the worker from counting
query(q{SELECT queue.enqueue('mixed', to_jsonb(n), priority => n % 10) FROM generate_series(0, 29) n});
query(q{BEGIN; SELECT queue.enqueue('mixed', '"open"', priority => 9); PREPARE TRANSACTION 'uncounted'});
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', q{SELECT bool_and(priorities IS NOT NULL) FROM queue.segments WHERE queue = 'mixed'}), 'the worker has looked at all segments');
is(query(q{SELECT exact FROM queue.stats WHERE queue = 'mixed'}), 'f', 'which is not counted');
is(main::pop('mixed', 30),
	join(' ', map { my $p = 9 - $_; map { "$p:" . ($_ * 10 + $p) } 0 .. 2 } 0 .. 9), 'all come in order');
query(q{COMMIT PREPARED 'uncounted'});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM queue.pop('mixed', 1) WHERE payload = '"open"'}), 'and what was prepared');

# ----- without a worker nobody knows which there are, and all can be had all the same

$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
query(q{SELECT queue.create('alone', '{"priority_mode": "strict"}')});
query(q{SELECT queue.enqueue('alone', '"four"')});
query(q{SELECT queue.enqueue('alone', to_jsonb(repeat('x', 2000)), priority => n % 10) FROM generate_series(0, 29) n});
$node->restart;
query(q{SELECT queue.enqueue('alone', to_jsonb(repeat('y', 8000)), priority => 7)});
is(query(q{SELECT count(*) FROM queue.pop('alone', 100)}), '32', 'one of a known priority does not hide the others');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;

# ----- nothing starves with aging

query(q{
	SELECT queue.create('aging', '{"aging_step": "10 s"}');
	SELECT queue.enqueue('aging', '"low"', priority => 0);
});
my $overtaken = 0;
for (1 .. 30)
{
	query(q{SELECT queue.clock_advance('5 s')});
	query(q{SELECT queue.enqueue('aging', '"high"', priority => 9)});
	last if main::pop('aging', 1) eq '0:low';
	$overtaken++;
}
# Enqueued up to 90 s after it: 5 s to 85 s, and at 90 s the higher one still goes first.
is($overtaken, 17, 'a low one is overtaken for as long as the distance of the priorities says')
  or diag $overtaken;
is(main::pop('aging', 1), '9:high', 'the higher one comes after it');

# a producer comes back to its page, when others have gone on to the next
query(q{
	SELECT queue.create('pages', '{"aging_step": "10 s"}');
	SELECT queue.enqueue('pages', '1', priority => 7);
});
await_reserve('pages');
query(q{SELECT count(*) FROM queue.pop('pages')});
my $small = $node->background_psql('postgres');
$small->query_safe(q{SELECT queue.enqueue('pages', '1', priority => 7)});
query(q{SELECT queue.enqueue_bytes('pages', sha512(n::text::bytea) || decode((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 180) WHERE n > 0), 'hex'), priority => 7)
	FROM generate_series(1, 5) n});
query(q{SELECT queue.clock_advance('100 s')});
$small->query_safe(q{SELECT queue.enqueue('pages', '7', priority => 7)});
$small->quit;
query(q{SELECT queue.enqueue('pages', '8', priority => 9)});
is(query(q{SELECT count(*) FROM queue.pop('pages', 2)}), '2', 'two of the first page');
is(query(q{SELECT string_agg(coalesce(payload::text, 'large'), ' ') FROM queue.pop('pages', 1)}), 'large', 'then the next, of whatever page') for 1 .. 4;
is(query(q{SELECT payload FROM queue.pop('pages')}), $_, "then $_") for 8, 7;

# nor is a page filled again that a VACUUM has freed, before what is behind it is gone
query(q{
	SELECT queue.create('freed', '{"aging_step": "10 s"}');
	SELECT queue.enqueue('freed', '1', priority => 7);
});
await_reserve('freed');
query(q{SELECT count(*) FROM queue.pop('freed')});
query(q{SELECT queue.enqueue_bytes('freed', sha512(n::text::bytea) || decode((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 180) WHERE n > 0), 'hex'), priority => 7)
	FROM generate_series(1, 6) n});
is(query(q{SELECT count(*) FROM queue.pop('freed', 2)}), '2', 'two of the first page');
query('VACUUM');
query(q{SELECT queue.clock_advance('100 s')});
query(q{SELECT queue.enqueue('freed', '7', priority => 7)});
query(q{SELECT queue.enqueue('freed', '8', priority => 9)});
is(query(q{SELECT string_agg(coalesce(payload::text, 'large'), ' ') FROM queue.pop('freed')}), 'large', 'older ones of other pages first') for 1 .. 4;

# who asks for a key has looked at what comes first, and left it there
query(q{
	SELECT queue.create('keyed', '{"aging_step": "10 s"}');
	SELECT queue.enqueue('keyed', '1', priority => 0);
});
await_reserve('keyed');
query(q{
	SELECT count(*) FROM queue.pop('keyed');
	SELECT queue.enqueue('keyed', to_jsonb(n), key => 'a', priority => 0) FROM generate_series(1, 3) n;
});
query(q{SELECT queue.clock_advance('200 s')});
query(q{SELECT queue.enqueue('keyed', '"wanted"', key => 'b', priority => 0)});
query(q{SELECT queue.enqueue('keyed', '"high"', key => 'c', priority => 9)});
is(query(q{SELECT payload #>> '{}' FROM queue.dequeue('keyed', options => '{"key": "b"}')}), 'wanted', 'one of a key is taken from behind others');
is(main::pop('keyed', 4), '0:1 0:2 0:3 9:high', 'which come as before');

# ----- timed messages of several priorities, through their buckets

query(q{
	SELECT queue.create('timed', '{"priority_mode": "strict"}');
	SELECT queue.enqueue('timed', to_jsonb('r' || n), priority => n) FROM generate_series(0, 9, 3) n;
	SELECT queue.enqueue('timed', to_jsonb('t' || n), priority => n, delay => '10 min') FROM generate_series(0, 9) n;
});
is(main::pop('timed', 20), '9:r9 6:r6 3:r3 0:r0', 'what is not delayed');
query(q{SELECT queue.clock_advance('11 min')});
query(q{SELECT queue.enqueue('timed', to_jsonb('r' || n), priority => n) FROM generate_series(0, 9, 3) n});
is(query(q{SELECT string_agg(coalesce(priority, 4)::text, '' ORDER BY at) FROM queue.pop('timed', 20) WITH ORDINALITY AS t(id, receipt, queue, attempt, enqueued_at, lease_until, expires_at, key, priority, headers, payload, body, last_error, at)}),
	'99876654332100', 'all by their priority when it is due');

# ----- old segments are emptied, and their priorities forgotten

query(q{SELECT queue.create('small', '{"segment_size": "64 kB", "priority_mode": "strict"}')});
query(q{SELECT queue.enqueue_batch('small', array_agg(to_jsonb(repeat('x', 200))), priority => 7) FROM generate_series(1, 2000)});
query(q{SELECT queue.enqueue('small', '"stays"', priority => 7)});
is(query(q{SELECT count(*) FROM queue.pop('small', 2000)}), '2000', 'many of a priority are consumed');
ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM queue.segments WHERE queue = 'small' AND state = 'sealed'}), 'their segments are emptied');
is(main::pop('small', 10), '7:stays', 'the last one is there');
is(query('SELECT * FROM queue.check()'), '', 'check() finds nothing');

$node->stop;
done_testing();
