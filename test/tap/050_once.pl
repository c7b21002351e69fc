# What is accepted once: over restarts, crashes, the change of tables with time, dump and restore, prepared transactions,
# and while sixteen producers fight for the same keys, some of them are killed, and the server crashes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use IPC::Run;
use Test::More;

my $node = new_node('main', conf => "max_prepared_transactions = 5\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION queue');
ok(await_worker($node, 'postgres', 1), 'the worker runs');

sub query
{
	my ($query, $database) = @_;

	return $node->safe_psql($database // 'postgres', $query);
}

# Whether it was a duplicate.
sub put
{
	my ($queue, $key, $database) = @_;

	return query("SELECT duplicate FROM queue.enqueue_unique('$queue', '1', dedup_key => '$key')", $database);
}

sub put_unique
{
	my ($queue, $key, $database) = @_;

	return query("SELECT duplicate FROM queue.enqueue_unique('$queue', '1', options => '{\"unique_key\": \"$key\"}')", $database);
}

# Sizes of the tables of a span, in pages.
sub pages
{
	my ($span) = @_;

	return query("SELECT string_agg((pg_relation_size(format('queue._seen_%s_%s', '$span', n)) / 8192)::text, ' ' ORDER BY n) FROM generate_series(1, 3) n");
}

# ----- restarts and crashes

query("SELECT queue.create('q'), queue.create('ever', '{\"dedup_window\": \"infinity\"}')");
is(join(' ', put('q', 'a'), put('ever', 'a'), put_unique('q', 'u')), 'f f f', 'the first of each');
$node->restart;
is(join(' ', put('q', 'a'), put('ever', 'a'), put_unique('q', 'u')), 't t t', 'after a restart all are known');
$node->stop('immediate');
$node->start;
is(join(' ', put('q', 'a'), put('ever', 'a'), put_unique('q', 'u')), 't t t', 'and after a crash');
is(query('SELECT count(*) FROM queue.pop(\'q\', 10)'), '2', 'two messages');
$node->stop('immediate');
$node->start;
is(join(' ', put('q', 'a'), put_unique('q', 'u')), 't f', 'the unique key is free, the other not');

# ----- prepared transactions

query("BEGIN; SELECT queue.enqueue('q', '1', dedup_key => 'p', options => '{\"unique_key\": \"p\"}'); PREPARE TRANSACTION 'p'");
$node->stop('immediate');
$node->start;
my $waits = $node->background_psql('postgres');
$waits->query_until(qr/go/, "\\echo go\nSELECT 'duplicate ' || duplicate FROM queue.enqueue_unique('q', '1', dedup_key => 'p');\n");
ok(await($node, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"), 'who enqueues the same waits');
query("COMMIT PREPARED 'p'");
like($waits->query_until(qr/duplicate \w+/, ''), qr/duplicate true/, 'and it is a duplicate');
$waits->quit;
is(put_unique('q', 'p'), 't', 'so is the unique key');

# ----- tables follow each other

ok(await_worker($node, 'postgres', 1), 'the worker runs again');
query("SELECT queue.create('span')");
is(put('span', "k$_"), 'f', "key $_") for 1 .. 2;
my %used;
for my $round (1 .. 8)
{
	query("SELECT queue.clock_advance('150 s')");
	is(put('span', "round$round"), 'f', "round $round: a new key");
	is(put('span', 'round' . ($round - 1)), $round > 1 ? 't' : 'f', "round $round: the one before");
	is(put('span', 'round' . ($round - 2)), 'f', "round $round: its window is over") if $round > 2;
	query('SELECT queue.clock_advance(\'5 s\')');
	$used{$_} = 1 foreach (grep { (split ' ', pages('5min'))[$_ - 1] > 0 } 1 .. 3);
}
is(join(' ', sort keys %used), '1 2 3', 'all tables were used');
query("SELECT queue.clock_advance('10 min')");
is(put('span', 'late'), 'f', 'a late one');
query("SELECT queue.clock_advance('7 min')");
ok(await($node, q{SELECT count(*) = 1 FROM generate_series(1, 3) n WHERE pg_relation_size('queue._seen_5min_' || n) > 0}), 'what is over is emptied')
	or diag(pages('5min'));

# many keys: what is over leaves the disk, and nothing is deleted row by row
my @sizes;
for my $round (1 .. 6)
{
	query("SELECT cardinality(queue.enqueue_batch('span', array_agg('1'::jsonb), dedup_keys => array_agg('r$round ' || n))) FROM generate_series(1, 5000) n");
	query("SELECT count(*) FROM queue.pop('span', 10000)");
	push @sizes, query("SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relname ~ '^_seen_5min_.\$'");
	query("SELECT queue.clock_advance('6 min 1 s')");
	ok(await($node, q{SELECT count(*) < 3 FROM generate_series(1, 3) n WHERE pg_relation_size('queue._seen_5min_' || n) > 0}), "round $round: one is empty");
}
cmp_ok($sizes[5], '<=', 3 * $sizes[0], 'the tables do not grow');
is(query("SELECT sum(n_tup_del) FROM pg_stat_all_tables WHERE relname ~ '^_seen_5min_'"), '0', 'no row was deleted');

# the same while sixteen clients are in the tables all the time
my $keys = $node->basedir . '/keys.sql';
append_to_file($keys, "SELECT cardinality(queue.enqueue_batch('span', array_fill('1'::jsonb, ARRAY[20]), dedup_keys => ARRAY(SELECT gen_random_uuid()::text FROM generate_series(1, 20))));\n");
my $busy = IPC::Run::start([ 'pgbench', '-n', '-c', '16', '-j', '2', '-T', '120', '-f', $keys, $node->connstr('postgres') ], '>', \my $busy_out, '2>', \my $busy_err);
for my $round (1 .. 4)
{
	my $full = "SELECT coalesce(string_agg(n::text, '' ORDER BY n), '') FROM generate_series(1, 3) n WHERE pg_relation_size('queue._seen_5min_' || n) > 0";

	query("SELECT queue.clock_advance('6 min 1 s')");
	ok(await($node, "SELECT length(($full)) < 3", limit => 60), "round $round under load: one is empty");
}
$busy->kill_kill;
query("SELECT count(*) FROM queue.pop('span', 10000)") while query('SELECT ready FROM queue.stats WHERE queue = \'span\'') > 0;

# a transaction that stays open keeps its table, and no other work waits for that
my $open = $node->background_psql('postgres');
$open->query_safe("BEGIN; SELECT queue.enqueue('span', '1', dedup_key => 'open')");
for my $round (1 .. 3)
{
	query("SELECT queue.clock_advance('6 min 1 s')");
	is(put('span', "beside$round"), 'f', "beside an open transaction, $round");
}
$open->query_safe('COMMIT');
$open->quit;
is(put('span', 'open'), 'f', 'its window has begun when it was accepted, and is over');

# without a worker
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is(put('span', 'alone'), 'f', 'without a worker');
is(put('span', 'alone'), 't', 'a key is known');
for my $round (1 .. 4)
{
	query("SELECT queue.clock_advance('5 min')");
	is(put('span', 'alone'), 'f', "free when its window is over, $round");
	is(put('span', 'alone'), 't', "and known again, $round");
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;

# ----- dump and restore

query("SELECT queue.create('dump', '{\"dedup_window\": \"1 h\"}')");
is(join(' ', put('dump', 'a'), put('dump', 'b'), put_unique('dump', 'u'), query("SELECT queue.once('c', 'm')")), 'f f f t', 'before a dump');
query("SELECT queue.cancel('dump', min(id)) FROM queues.dump");
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
query('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'restored');
is(join(' ', put('dump', 'a', 'copy'), put('dump', 'b', 'copy'), put_unique('dump', 'u', 'copy'), query("SELECT queue.once('c', 'm')", 'copy')), 't t t f',
	'the copy knows what was remembered');
is(put('dump', 'c', 'copy'), 'f', 'and takes what is new');

# ----- sixteen producers, a third of the transactions rolled back, kills and crashes

query(q{
	SELECT queue.create('fight', '{"dedup_window": "1 h"}'), queue.create('line', '{"dedup_window": "1 h", "ordered": true}');
	SELECT queue.create('single', '{"max_attempts": 0, "backoff": "none"}');
	CREATE TABLE said (key text, id bigint, duplicate boolean, kind text);
	CREATE TABLE done (key text, id bigint);
	CREATE SEQUENCE epoch;
});
my $fight = $node->basedir . '/fight.sql';
append_to_file($fight, q{
\set k random(1, 3000)
\set fate random(1, 100)
\set way random(1, 6)
BEGIN;
\if :way = 1
INSERT INTO said SELECT 'k' || :k, id, duplicate, 'dedup' FROM queue.enqueue_unique('fight', to_jsonb('k' || :k), dedup_key => 'k' || :k);
\elif :way = 2
INSERT INTO said SELECT 'k' || k, id, NULL, 'dedup' FROM (SELECT unnest(keys) AS k, unnest(queue.enqueue_batch('fight', payloads, dedup_keys => names)) AS id
	FROM (SELECT array_agg(n) AS keys, array_agg(to_jsonb('k' || n)) AS payloads, array_agg('k' || n) AS names FROM generate_series(:k, :k + 5) n) b) batch;
\elif :way = 3
INSERT INTO said SELECT 'u' || :k % 20, id, duplicate, 'unique' FROM queue.enqueue_unique('single', to_jsonb('u' || :k % 20), options => jsonb_build_object('unique_key', 'u' || :k % 20));
\elif :way = 4
INSERT INTO said SELECT 'l' || k, id, NULL, 'line' FROM (SELECT unnest(keys) AS k, unnest(queue.enqueue_batch('line', payloads, keys => texts, dedup_keys => names)) AS id
	FROM (SELECT array_agg(n) AS keys, array_agg(to_jsonb('l' || n)) AS payloads, array_agg((n % 7)::text) AS texts, array_agg('l' || n) AS names FROM generate_series(:k, :k + 20) n) b) batch;
\elif :way = 5
INSERT INTO said SELECT 'u' || :k % 20, id, duplicate, 'replace' FROM queue.enqueue_unique('single', to_jsonb('u' || :k % 20), options => jsonb_build_object('unique_key', 'u' || :k % 20, 'on_conflict', 'replace'));
\else
INSERT INTO done SELECT payload #>> '{}', id FROM queue.pop('single', 3);
\endif
\if :fate <= 30
ROLLBACK;
\else
COMMIT;
\endif
});
for my $crash (1 .. 3)
{
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '16', '-j', '2', '-T', '6', '-f', $fight, '--max-tries', '1', $node->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);
	for (1 .. 5)
	{
		sleep 1;
		query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY random() LIMIT 1") if $_ < 5;
	}
	$node->stop('immediate') if $crash < 3;
	$load->finish;
	$node->start if $crash < 3;
}
cmp_ok(query('SELECT count(*) FROM said'), '>', 1000, 'there was a fight');
is(query("SELECT count(*) FROM (SELECT FROM said WHERE kind = 'dedup' GROUP BY key HAVING count(*) FILTER (WHERE NOT duplicate) > 1) t"), '0', 'no key was accepted twice');
is(query("SELECT count(*) FROM (SELECT FROM said WHERE kind = 'dedup' GROUP BY key HAVING count(DISTINCT id) > 1) t"), '0', 'all were told the same id');
is(query("SELECT count(*) - count(DISTINCT payload) FROM queues.fight"), '0', 'no message is there twice');
is(query("SELECT count(*) FROM (SELECT DISTINCT key, id FROM said WHERE kind = 'dedup') s FULL JOIN queues.fight f ON s.id = f.id AND s.key = f.payload #>> '{}' WHERE s.id IS NULL OR f.id IS NULL"),
	'0', 'what was said is there, and nothing else');
is(query("SELECT count(*) FROM (SELECT FROM said WHERE kind = 'line' GROUP BY key HAVING count(DISTINCT id) > 1) t"), '0', 'nor of an ordered queue');
is(query("SELECT count(*) - count(DISTINCT payload) FROM queues.line"), '0', 'where no message is there twice either');
is(query("SELECT count(*) FROM (SELECT DISTINCT key, id FROM said WHERE kind = 'line') s FULL JOIN queues.line f ON s.id = f.id AND s.key = f.payload #>> '{}' WHERE s.id IS NULL OR f.id IS NULL"),
	'0', 'and what was said is there, and nothing else');
is(query("SELECT count(*) - count(DISTINCT payload) FROM queues.single"), '0', 'no unique key is there twice');
is(query("SELECT count(*) FROM queues.single q JOIN done d ON d.id = q.id"), '0', 'what was consumed is not there');
is(query("SELECT count(*) FROM (SELECT DISTINCT id FROM said WHERE kind = 'unique' AND NOT duplicate) s WHERE id NOT IN (SELECT id FROM done) AND id NOT IN (SELECT id FROM queues.single)") <=
	query("SELECT count(*) FROM said WHERE kind = 'replace' AND duplicate"), '1', 'each is there, or was consumed or replaced');
is(query("SELECT count(*) FROM queue._unique_key WHERE encode(uuid_send(hash), 'hex') LIKE (SELECT lpad(to_hex(id), 8, '0') FROM queue._queue WHERE view = 'queues.single'::regclass) || '%'"), query("SELECT count(*) FROM queues.single"), 'as many unique keys are held as messages are there');
is(query("SELECT count(*) FROM (SELECT id FROM done GROUP BY id HAVING count(*) > 1) t"), '0', 'none was consumed twice');
is(query('SELECT * FROM queue.check()'), '', 'check() finds nothing');

$node->stop;
done_testing();
