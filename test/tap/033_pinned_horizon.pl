# Whoever pins the horizon of vacuum: segments are emptied and used again, no row of any other table is written
# for a message, and queue.health() names the holder. Load flows meanwhile, through small segments.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $rounds = 6;

# What a round stores is more than half of this, so disk that is not given back shows at once.
my $bound = 1024 * 1024;

my $node = new_node('main', allows_streaming => 'logical', conf => "max_prepared_transactions = 10\nautovacuum = off\nqueue.worker_interval = '50ms'\nqueue.reclaim_delay = '1min'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE TABLE business (id int);
	INSERT INTO business VALUES (1);
	CREATE ROLE stranger;
	SELECT queue.create('q', '{"segment_size": "64kB", "backoff": "none"}');
	CREATE FUNCTION fill(n int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue('q', to_jsonb((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, CASE i % 40 WHEN 0 THEN 300 ELSE 30 END)))))
	   FROM generate_series(1, n) i $$;
});
my $exact = $node->safe_psql('postgres', "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgstattuple')") eq 't';
$node->safe_psql('postgres', 'CREATE EXTENSION pgstattuple') if $exact;
note('row versions are counted by ' . ($exact ? 'pgstattuple' : 'the size of tables'));
ok(await_worker($node, 'postgres', 1), 'the worker runs');
$node->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = '1s'\nmax_standby_streaming_delay = -1");

# One message at a time in a transaction of its own, then many at once; each kind of end.
my $singly = join("\n", map { "SELECT fill(1);\nSELECT queue.ack(receipt) FROM queue.dequeue('q');" } 1 .. 100);
my $round = "$singly
	SELECT fill(200);
	SELECT queue.nack(receipt, 'again') FROM queue.dequeue('q', 20);
	SELECT queue.release(receipt) FROM queue.dequeue('q', 20);
	BEGIN;
	SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 20);
	ROLLBACK;";
my $operations = $rounds * (200 + 200 + 3 * 20 + 3 * 200);

sub drain
{
	return await($node, "SELECT count(queue.ack(receipt)) >= 0 AND (SELECT count(*) FROM queues.q) = 0 FROM queue.dequeue('q', 1000)");
}

# Row versions, or pages, of each table but the segments, and pages of indexes.
sub versions
{
	my $count = $exact ? "c.oid::regclass || ' rows:' || (SELECT t.tuple_count + t.dead_tuple_count FROM pgstattuple(c.oid::regclass) t)" : 'NULL';
	my $rows = $node->safe_psql('postgres', qq{
		SELECT coalesce(CASE WHEN c.relkind <> 'i' THEN $count END, c.oid::regclass || ' pages:' || pg_relation_size(c.oid) / 8192)
		FROM pg_class c WHERE c.relkind IN ('r', 't', 'i') AND c.relpersistence = 'p'
		AND c.oid NOT IN (SELECT r.oid FROM queue._segment s JOIN pg_class h ON h.oid = s.relation
			JOIN pg_class t ON t.oid = h.reltoastrelid LEFT JOIN pg_index i ON i.indrelid = t.oid, LATERAL (VALUES (h.oid), (t.oid), (i.indexrelid)) r(oid))});
	return map { /^(.*):(\d+)$/ } split(/\n/, $rows);
}

my $health = 'SELECT status, value, detail, hint FROM queue.health() WHERE "check" = \'horizon\'';
my $disk = "SELECT sum(pg_total_relation_size(segment)) FROM queue.segments WHERE queue = 'q'";
my $tables = "SELECT count(*) FROM queue.segments WHERE queue = 'q'";

# Load under a holder that is in place. "name" is what health() calls it, as an expression; "waits": whether its
# snapshot could see rows of segments, so that reclaim_delay counts.
sub under
{
	my ($what, %holder) = @_;

	# The first round makes the ring as long as it gets.
	my ($largest, $most, %before, $ring) = (0, 0);
	for my $i (0 .. $rounds)
	{
		$node->safe_psql('postgres', $round);
		drain() or return fail("$what: round $i is not consumed");
		if ($i == 1 && $holder{waits})
		{
			my $kept = "FROM queue.segments WHERE queue = 'q' AND kept_because = 'reclaim_delay has not passed since the last delete'";

			ok(await($node, "SELECT count(*) > 0 $kept"), "$what: queue.segments says why");
			like($node->safe_psql('postgres', "SELECT kept_by $kept LIMIT 1"), qr/^$holder{name}/, "$what: and who");
		}
		advance($node, '61 s');
		unless (await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0', limit => 30))
		{
			diag($node->safe_psql('postgres', "SELECT number, state, size, live, kept_because, kept_by FROM queue.segments WHERE queue = 'q'"));
			return fail("$what: full segments are emptied in round $i");
		}
		my ($bytes, $n) = map { $node->safe_psql('postgres', $_) } $disk, $tables;
		$largest = $bytes if $bytes > $largest;
		$most = $n if $n > $most;
		($ring, %before) = ($n, versions()) if $i == 0;
	}
	my %after = versions();
	cmp_ok($largest, '<', $bound, "$what: disk stays bounded");
	cmp_ok($most, '<', 16, "$what: so does the number of segments");
	my $new = $node->safe_psql('postgres', $tables) - $ring;
	note("$what: at most $largest bytes, $most segments, $new of them new since the first round");
	# A new segment has its rows in catalogs, some dozens in pg_attribute.
	my @grown = grep { $after{$_} > ($before{$_} // 0) } sort keys %after;
	note("$what: $_ $before{$_} -> $after{$_}") foreach @grown;
	is(join(' ', grep { $after{$_} - ($before{$_} // 0) > (/rows$/ ? 100 * $new : 2 + $new) } @grown), '', "$what: no row is written beside $operations operations");

	my ($known, $seen) = ($node->safe_psql('postgres', $health), $node->safe_psql('postgres', "SET ROLE stranger; $health"));
	like($known, qr/^\w+\|[1-9]\d* transactions\|Held by $holder{name}(?:[^;]*)\.\|/, "$what: health() names it");
	like($known, qr/^ok\|.*\|$/, "$what: which is not old yet") unless $holder{old};
	like($seen, qr/Held by $holder{seen}/, "$what: to a stranger too");
	unlike($seen, qr/idle|since/, "$what: but no more than pg_stat_activity tells him") if $holder{private};
	return;
}

# What is old is warned of, with the way out and what it means.
sub warned
{
	my ($what, $name, $remedy, $suffers) = @_;

	like($node->safe_psql('postgres', $health), qr/^warn\|.*\|Held by $name.*\|$remedy.* Queues keep their speed, and give disk back after queue.reclaim_delay; $suffers cannot be vacuumed\.$/,
		"$what: old, and warned of with the way out");
	return;
}

# The extension's clock goes ahead of transactions, so the later ones look old from the first.
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $idle = qr/pid $pid \(idle in transaction\) of role "\w+", in a transaction since 2/;
my $end_it = qr/End its transaction, or the session: SELECT pg_terminate_backend\($pid\)\./;
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->query_safe('SELECT count(*) FROM business');
under('idle in REPEATABLE READ', name => $idle, seen => qr/pid $pid/, private => 1, waits => 1);
advance($node, '1 h');
warned('idle in REPEATABLE READ', $idle, $end_it, 'other tables');
is($session->query_safe('SELECT count(*) FROM business'), '1', 'it still works');
$session->query_safe('COMMIT');

$session->query_safe('BEGIN');
$session->query_safe('INSERT INTO business VALUES (2)');
under('idle with an id', name => $idle, seen => qr/pid $pid/, private => 1, waits => 1, old => 1);
warned('idle with an id', $idle, $end_it, 'other tables');
$session->query_safe('ROLLBACK');
$session->quit;

$node->safe_psql('postgres', "BEGIN; INSERT INTO business VALUES (3); PREPARE TRANSACTION 'for''gotten'");
my $prepared = qr/prepared transaction "for'gotten" of role "\w+", prepared at 2/;
under('prepared transaction', name => $prepared, seen => $prepared, waits => 1, old => 1);
warned('prepared transaction', $prepared, qr/In database "postgres": COMMIT PREPARED 'for''gotten' or ROLLBACK PREPARED 'for''gotten'\./, 'other tables');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'for''gotten'");

# a query on a standby, and its feedback
sub query_on_standby
{
	my $query = $standby->background_psql('postgres');

	$query->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$query->query_safe('SELECT count(*) FROM business');
	return $query;
}

$node->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('left_behind')");
$standby->append_conf('postgresql.conf', "primary_slot_name = 'left_behind'");
$standby->start;
my $query = query_on_standby();
ok(await($node, "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'left_behind'"), 'a standby reports its snapshot to a slot');
like($node->safe_psql('postgres', "SELECT string_agg(holder, ' ') FROM queue._horizon"), qr/physical replication slot "left_behind" \(xmin\), in use by pid \d+, "standby"/, 'which is named with its user');
$query->quit;
$standby->stop('immediate');
ok(await($node, 'SELECT NOT active FROM pg_replication_slots'), 'the standby is gone');
my $left_behind = qr/physical replication slot "left_behind" \(xmin\), which nobody uses/;
under('slot that was left behind', name => $left_behind, seen => $left_behind, waits => 1);
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('left_behind')");

$node->safe_psql('postgres', "SELECT pg_create_logical_replication_slot('unread', 'pgoutput')");
my $unread = qr/logical replication slot "unread" \(catalog_xmin\), which nobody uses/;
under('logical slot', name => $unread, seen => $unread);

# By the number of transactions, since slots and standbys tell no time: burn ids as years of other work do.
$standby->append_conf('postgresql.conf', "primary_slot_name = ''");
$standby->start;
$node->wait_for_catchup($standby);
$query = query_on_standby();
ok(await($node, "SELECT age(backend_xmin) < age(catalog_xmin) FROM pg_stat_replication, pg_replication_slots"), 'a standby without a slot reports its snapshot');
$node->safe_psql('postgres', 'SET synchronous_commit = off; DO $$ BEGIN FOR i IN 1 .. 1010000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
my $drop = qr/If nobody will come back for it: SELECT pg_drop_replication_slot\('\w+'\)\./;
warned('logical slot', $unread, $drop, 'the system catalogs');
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('unread')");
my $feedback = qr/standby "standby" with hot_standby_feedback, through pid \d+/;
warned('standby with feedback', $feedback, qr/End the long query on the standby, or set hot_standby_feedback = off there/, 'other tables');
under('standby with feedback', name => $feedback, seen => $feedback, waits => 1, old => 1);
is($query->query_safe('SELECT count(*) FROM business'), '1', 'its query was not cancelled');
$query->quit;
$standby->stop;

ok(await($node, $health, expected => 'ok|0 transactions|Nobody holds an old snapshot.|'), 'nobody is left');

# When the holder goes, nobody waits for the rest of the delay.
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->query_safe('SELECT count(*) FROM business');
$node->safe_psql('postgres', $round);
ok(drain(), 'all is consumed under one more');
my $delayed = "SELECT count(*) > 0 AND bool_and(kept_because IS NOT DISTINCT FROM 'reclaim_delay has not passed since the last delete') FROM queue.segments WHERE queue = 'q' AND state = 'sealed'";
ok(await($node, $delayed), 'its snapshot keeps all full segments');
$session->query_safe('COMMIT');
$session->quit;
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0', limit => 30), 'they are emptied before the delay is over');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'no crash in the log');
$node->stop;
done_testing();
