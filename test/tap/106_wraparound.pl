# Transaction ids and multixacts run out beside live traffic: forced vacuums of segments harm nothing, and the worker
# vacuums them in time, so that none is forced where nobody holds an old snapshot.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

# The least that can be set.
my ($most_ids, $most_multis) = (100_000, 10_000);

my $node = new_node('main', conf => qq{
autovacuum_freeze_max_age = $most_ids
autovacuum_multixact_freeze_max_age = $most_multis
autovacuum_naptime = 1s
log_autovacuum_min_duration = 0
synchronous_commit = off
queue.worker_interval = '100ms'
queue.reclaim_delay = 0
});
$node->start;
create_ledger($node);
$node->safe_psql('postgres', q{
	SELECT queue.create(name, '{"segment_size": "64kB"}') FROM unnest('{old,unused}'::text[]) name;

	CREATE FUNCTION tables() RETURNS TABLE (relid oid, ids int, multis int) LANGUAGE sql AS $$
		SELECT c.oid, age(c.relfrozenxid), mxid_age(c.relminmxid) FROM queue.segments s
		JOIN pg_class t ON t.oid = s.segment JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid) $$;
	CREATE FUNCTION noise(n int, size int) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object('n', n, 'noise', string_agg(md5(n::text || i), '')) FROM generate_series(1, size / 32) i $$;

	CREATE TABLE shared_row AS SELECT 1;
	CREATE PROCEDURE burn_ids(n int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			PERFORM pg_current_xact_id();
			COMMIT;
		END LOOP;
	END $$;
	CREATE PROCEDURE burn_multis(n int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			PERFORM FROM shared_row FOR SHARE;
			COMMIT;
		END LOOP;
	END $$;
});

# A backlog that nobody works on, and dead letters, in several segments and out of line. Some are leased all the time.
my $fill = 'SELECT queue.enqueue_batch(%s, array_agg(noise(n, CASE WHEN n %% 20 = 0 THEN 50000 ELSE 3000 END))) FROM generate_series(%s) n';
$node->safe_psql('postgres', sprintf($fill, "'old'", "$_, $_ + 19")) foreach map { 1 + 20 * $_ } 0 .. 5;
$node->safe_psql('postgres', q{
	SELECT count(queue.reject(receipt)) FROM queue.dequeue('old', 60);
	CREATE TABLE held AS SELECT receipt FROM queue.dequeue('old', 10, '10 h') UNION ALL SELECT receipt FROM queue.dequeue('old_dead', 10, '10 h');
});
my $backlog = "SELECT count(*), md5(string_agg(payload::text, ' ' ORDER BY payload)) FROM (SELECT payload FROM queues.old UNION ALL SELECT payload FROM queues.old_dead) m";
my $before = $node->safe_psql('postgres', $backlog);
like($before, qr/^120\|/, 'an old backlog');

my $traffic = start_traffic($node, seconds => 600);
ok(await($node, 'SELECT count(*) > 50 FROM worked'), 'live traffic');
my $locker = $node->background_psql('postgres');

# One share lock is not a multixact; each that joins it makes one.
sub burn
{
	my ($ids, $multis, $meanwhile) = @_;

	$locker->query_safe('BEGIN; SELECT FROM shared_row FOR SHARE');
	$node->safe_psql('postgres', "CALL burn_multis($multis)");
	if ($meanwhile)
	{
		$node->safe_psql('postgres', "CALL burn_ids($ids)");
		$meanwhile->();
	}
	$locker->query_safe('COMMIT');
	$node->safe_psql('postgres', "CALL burn_ids($ids)") unless $meanwhile;
}

# Of what is in the log; toast tables of catalogs have smaller numbers.
my ($segment, $toast) = (qr/to prevent wraparound of table "postgres\.queues\./, qr/to prevent wraparound of table "postgres\.pg_toast\.pg_toast_(?:1[6-9]|[2-9]\d)\d{3}"/);

# While somebody holds an old snapshot, nothing can be done in time.
my $worked = worked($node);
burn($most_ids + 5000, $most_multis + 1000, sub {
	ok($node->wait_for_log($segment), 'vacuums of segments are forced');
	ok($node->wait_for_log($toast), 'and of their toast tables');
});
ok(await($node, "SELECT max(ids) < $most_ids / 2 AND max(multis) < $most_multis / 2 FROM tables()"), 'afterwards all tables of queues are young');
cmp_ok(worked($node), '>', $worked, 'traffic went on');

# Nobody does, and the ids run past all that a table may age.
my $log = -s $node->logfile;
my $old = 0;
foreach my $part (1 .. 30)
{
	burn($most_ids / 25, $most_multis / 25);
	$old = !await($node, "SELECT max(ids) < $most_ids * 0.8 AND max(multis) < $most_multis * 0.8 FROM tables()", limit => 20);
	last if $old;
}
ok(!$old, 'no table of a queue gets old');
unlike(join("\n", grep { /to prevent wraparound/ } split(/\n/, slurp_file($node->logfile, $log))), qr/$segment|$toast\b/, 'no vacuum of one was forced');
cmp_ok($node->safe_psql('postgres', 'SELECT max(vacuum_count) FROM tables() JOIN pg_stat_all_tables USING (relid)'), '<=', 8, 'the worker vacuumed seldom');
ok(await($node, "SELECT age(datfrozenxid) < $most_ids AND mxid_age(datminmxid) < $most_multis FROM pg_database WHERE datname = 'postgres'"), 'the database is young');

# All of it is there, once; and who has held a message since before can settle it.
stop_traffic($traffic);
$locker->quit;
is($node->safe_psql('postgres', $backlog), $before, 'the backlog is what it was');
is($node->safe_psql('postgres', "SELECT status, count(*) FROM queue.try_ack((SELECT array_agg(receipt) FROM held)) GROUP BY 1"), 'acked|20', 'old leases are acked');
drain_ok($node, 'at the end');
is(take_all($node, $_, 'count(queue.ack(receipt))'), '50', "and the others are delivered, $_") foreach ('old', 'old_dead');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE state = 'sealed'", expected => '0'), 'segments are emptied');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing bad in the log');
$node->stop;
done_testing();
