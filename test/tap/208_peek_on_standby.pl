# Reading queues on a standby while the primary empties segments: readers that are in the way are cancelled in
# time, as after any truncation; replay goes on, nothing crashes, no map is written there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

my $node = new_node('primary', allows_streaming => 1, conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->safe_psql('postgres', q{
	SELECT queue.create('long', '{"segment_size": "64kB"}');
	SELECT count(queue.enqueue('long', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 8)))) FROM generate_series(1, 3000) n;
});
$node->backup('base');

# Pages that a query looks at, the catalogs' apart.
sub pages
{
	my ($standby, $query) = @_;
	my $plan = $standby->safe_psql('postgres', "SELECT count(*) FROM queues.long; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $query");

	return ($plan =~ /"Shared Hit Blocks": (\d+)/)[0] + ($plan =~ /"Shared Read Blocks": (\d+)/)[0];
}

# Readers of the view that never hold it for long, until their time is over. What conflicts with recovery is tried again.
sub start_readers
{
	my ($standby, $output) = @_;
	my $script = $standby->basedir . '/peek.sql';

	append_to_file($script, q{
SELECT count(payload) FROM (SELECT payload FROM queues.q LIMIT 10) AS few;
SELECT count(*), sum(id) FROM queues.q;
});
	return IPC::Run::start([ 'psql', '-XAtq', '-h', $standby->host, '-p', $standby->port, 'postgres', '-c', q{\set VERBOSITY sqlstate}, map { ('-f', $script) } 1 .. 400 ],
		'<', \undef, '>', '/dev/null', '2>', $output);
}

foreach my $feedback (qw(off on))
{
	my $standby = PostgreSQL::Test::Cluster->new("feedback_$feedback");
	my @said = ('', '');

	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', "hot_standby_feedback = $feedback\nmax_standby_streaming_delay = '1s'\nwal_receiver_status_interval = '1s'");
	$standby->start;
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM queues.long'), '3000', "feedback $feedback: a long queue");
	cmp_ok(pages($standby, 'SELECT * FROM queues.long LIMIT 10') * 10, '<', pages($standby, 'SELECT * FROM queues.long'), "feedback $feedback: the first ten cost little");
	my $traffic = start_traffic($node);
	my @readers = map { start_readers($standby, \$said[$_]) } 0 .. 1;

	# one has a queue open and does not go on
	$node->wait_for_catchup($standby, 'replay');
	my $reader = $standby->background_psql('postgres', on_error_stop => 0);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$reader->query_safe('DECLARE c CURSOR FOR SELECT id, payload FROM queues.q');
	$reader->query('FETCH 3 FROM c');
	my $before = worked($node);
	my $replayed = worked($standby);
	ok(await($node, "SELECT count(*) > $before + 1500 FROM worked", limit => 120), "feedback $feedback: the primary goes through segments");
	ok(await($standby, "SELECT count(*) > $replayed + 1000 FROM worked"), "feedback $feedback: the standby follows");
	$_->finish foreach @readers;
	$node->stop('immediate');
	finish_traffic($traffic);
	$node->start;
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));

	foreach my $said (@said)
	{
		# cancelled by recovery, or by its deadlock check
		my @states = $said =~ /(?:ERROR|FATAL):\s+(\w+)/g;
		my %other = map { $_ => 1 } grep { !/^(40001|40P01)$/ } @states;

		is(join(' ', keys %other), '', "feedback $feedback: readers see nothing but conflicts with recovery (" . @states . ' times)');
	}
	is($standby->safe_psql('postgres', 'SELECT sum(confl_lock + confl_snapshot) > 0 FROM pg_stat_database_conflicts'), 't', "feedback $feedback: the one that did not go on was in the way");
	is($standby->safe_psql('postgres', 'SELECT count(*), sum(id) FROM queues.q'), $node->safe_psql('postgres', 'SELECT count(*), sum(id) FROM queues.q'), "feedback $feedback: the same messages");
	is($standby->safe_psql('postgres', q{SELECT string_agg("check" || ' ' || split_part(value, ' ', 1), ', ' ORDER BY "check") FROM queue.health() WHERE "check" IN ('lease_slots', 'map_memory')}),
		'lease_slots 0, map_memory 0', "feedback $feedback: neither map nor slots are in use");
	eval { $reader->quit };
	unlike(slurp_file($standby->logfile), qr/PANIC|TRAP|terminated by signal|could not read block|invalid page/, "feedback $feedback: nothing crashed");

	# a session that reads goes on over the promotion, and may write after it
	my $session = $standby->background_psql('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe('DECLARE c CURSOR FOR SELECT payload FROM queues.long ORDER BY id');
	is($session->query_safe('FETCH 1 FROM c'), '1', "feedback $feedback: a session reads");
	$standby->promote;
	is($session->query_safe('FETCH 1 FROM c'), '2', "feedback $feedback: and reads on");
	$session->query_safe('COMMIT');
	is($session->query_safe("SELECT payload, queue.ack(receipt) FROM queue.dequeue('long')"), '1|', "feedback $feedback: and works, promoted");
	is($session->query_safe("SELECT queue.enqueue('long', '0') > 3000"), 't', "feedback $feedback: and sends");
	$session->quit;
	ledger_ok($standby, "feedback $feedback, promoted");
	check_ok($standby);
	drain_ok($standby, "feedback $feedback, promoted");
	check_ok($standby);
	$standby->stop;
}
$node->stop;
done_testing();
