# A server that died while it emptied a toast table: the segment is emptied again before anything is stored in it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.reclaim_delay = 0\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"segment_size": "64kB"}');
	CREATE TABLE body AS SELECT string_agg(md5(i::text), '') AS text FROM generate_series(1, 2000) i;
	CREATE FUNCTION put(n int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue('q', to_jsonb((SELECT text FROM body)), headers => jsonb_build_object('fill', repeat(md5(i::text), 30)))) FROM generate_series(1, n) i $$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');
$node->safe_psql('postgres', "SELECT queue.create('r', '{\"segment_size\": \"64kB\"}')");

my $files = q{
	SELECT pg_relation_filepath(s.segment), pg_relation_filepath(c.reltoastrelid), pg_relation_filepath(i.indexrelid)
	FROM queue.segments s JOIN pg_class c ON c.oid = s.segment JOIN pg_index i ON i.indrelid = c.reltoastrelid
	WHERE s.queue = 'q' AND s.state = 'STATE' ORDER BY s.number LIMIT 1};

sub empty_file
{
	my ($path) = @_;

	truncate($node->data_dir . "/$path", 0) or die "could not truncate $path: $!";
}

# A page that the worker is at is passed over, so once may not be enough.
sub drain
{
	ok(await($node, "SELECT count(queue.ack(receipt)) >= 0 AND (SELECT count(*) FROM queues.q) = 0 FROM queue.dequeue('q', 1000)"), 'all is acked');
}

foreach my $case ('index lost, heap empty', 'index lost, dead rows', 'toast lost, index stale')
{
	my ($heap, $toast, $index);

	# two segments, the older one with dead rows only, and as many large values
	$node->safe_psql('postgres', 'SELECT put(80)') for 1 .. 2;
	if ($case =~ /heap empty/)
	{
		drain();
		ok(await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = 'q' AND state = 'reserve'"), "$case: one is empty");
		($heap, $toast, $index) = split(/\|/, $node->safe_psql('postgres', $files =~ s/STATE/reserve/r));
	}
	else
	{
		# held open, so that nothing is emptied before the stop
		my $pin = $node->background_psql('postgres');

		$pin->query_safe("BEGIN; SELECT count(*) FROM queues.q");
		drain();
		ok(await($node, "SELECT count(*) > 0 FROM queue.segments WHERE queue = 'q' AND state = 'sealed'"), "$case: one is full of dead rows");
		($heap, $toast, $index) = split(/\|/, $node->safe_psql('postgres', $files =~ s/STATE/sealed/r));
		$node->safe_psql('postgres', 'CHECKPOINT');
		$node->stop('immediate');
		eval { $pin->quit };
	}
	$node->safe_psql('postgres', 'CHECKPOINT') if $case =~ /heap empty/;
	$node->stop('fast') if $case =~ /heap empty/;
	empty_file($case =~ /toast lost/ ? $toast : $index);
	$node->start;

	is($node->safe_psql('postgres', 'SELECT put(70)'), '70', "$case: large messages are stored");
	is($node->safe_psql('postgres', "SELECT count(*) FROM queues.q WHERE length(payload->>0) = 64000"), '70', "$case: and can be read");
	drain();
	ok(await($node, "SELECT count(*) FROM queue.check()", expected => '0'), "$case: the worker has mended it");
	ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), "$case: all that was full is empty");
	is($node->safe_psql('postgres', 'SELECT put(70)'), '70', "$case: every segment can take large messages");
	drain();
	check_ok($node);
}
# VACUUM cuts a toast table, and leaves its index as long as it was
$node->safe_psql('postgres', 'SELECT put(3)');
drain();
$node->safe_psql('postgres', 'VACUUM');
check_ok($node);
$node->restart;
is($node->safe_psql('postgres', 'SELECT put(3)'), '3', 'large messages are stored after a VACUUM and a restart');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|could not read block/, 'nothing crashed, nothing was missed');
$node->stop;
done_testing();
