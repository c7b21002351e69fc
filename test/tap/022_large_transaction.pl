# One transaction enqueues 100,000 messages beside live traffic: consumers go on being served what others commit,
# and all of the large one arrive, once, when it has committed; none if it has not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Ledger;
use QueueTest;
use Test::More;

# More, when asked for.
my $count = $ENV{QUEUE_TEST_LARGE} // 100_000;
my $node = new_node('main', conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
create_ledger($node);
$node->safe_psql('postgres', q{SELECT queue.alter('q', '{"segment_size": "4MB"}')});

# Values of the large ones are negative, so that traffic's own are apart.
my %large = (
	'enqueue_batch' => "INSERT INTO sent SELECT (payloads->>(o - 1)::int)::bigint, id FROM (SELECT jsonb_agg(-n) AS payloads, queue.enqueue_batch('q', array_agg(to_jsonb(-n))) AS ids FROM generate_series(1, $count) n GROUP BY n / 1000) b, unnest(ids) WITH ORDINALITY AS u (id, o)",
	'INSERT' => "WITH m AS (INSERT INTO queues.q (payload) SELECT to_jsonb(-n) FROM generate_series($count + 1, 2 * $count) n RETURNING id, payload) INSERT INTO sent SELECT payload::bigint, id FROM m");

sub worked_on_large
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM worked WHERE n < 0');
}

my $traffic = start_traffic($node, seconds => 600);
ok(await($node, 'SELECT count(*) > 50 FROM worked'), 'live traffic');
my $arrived = 0;
foreach my $way (sort keys %large)
{
	my $sender = $node->background_psql('postgres');

	# rolled back, it leaves dead rows, which hold nobody up
	foreach my $end ($way eq 'INSERT' ? 'ROLLBACK' : (), 'COMMIT')
	{
		my $before = worked($node);

		$sender->query_safe('BEGIN');
		$sender->query_safe($large{$way});
		my $during = worked($node);
		cmp_ok($during, '>', $before, "$way, $end: consumers were served meanwhile");
		ok(await($node, "SELECT count(*) > $during + 20 FROM worked"), "$way, $end: and are while it is open");
		is(worked_on_large(), $arrived, "$way, $end: with nothing of it");
		$sender->query_safe($end);
	}
	$sender->quit;
	$arrived += $count;
	# by whoever: the live consumers, and one that takes many
	while (worked_on_large() < $arrived)
	{
		$node->safe_psql('postgres', q{
			WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 10000, wait => '1 s')), w AS (INSERT INTO worked SELECT payload::bigint FROM m)
			SELECT count(queue.ack(receipt)) FROM m});
	}
}
stop_traffic($traffic);
# their open transactions were rolled back
drain_ok($node, 'at the end');
is($node->safe_psql('postgres', 'SELECT count(*), min(n), max(n) FROM worked WHERE n < 0'), 2 * $count . '|-' . 2 * $count . '|-1', 'all have arrived');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), 'segments are emptied');
check_ok($node);

# A transaction that fills a segment goes on in the next one, which the worker makes for it meanwhile.
$node->append_conf('postgresql.conf', "queue.worker_interval = '600s'");
$node->restart;
ok(await_worker($node, 'postgres', 1), 'the worker runs, and does nothing unasked');
$node->safe_psql('postgres', q{SELECT queue.create('w', '{"segment_size": "64kB"}')});
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
foreach my $segments (2, 3)
{
	$session->query_safe(q{SELECT queue.enqueue_batch('w', array_agg(to_jsonb(repeat(md5(n::text), 10)))) FROM generate_series(1, 250) n});
	# The call that finds it full asks: here the next one, then the one that goes on in a new segment.
	$session->query_safe(q{SELECT queue.enqueue('w', '0')}) if $segments == 2;
	ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'w' AND state <> 'sealed'", expected => 2), "while it is open, with $segments segments");
	is($node->safe_psql('postgres', "SELECT count(*) FROM queue.segments WHERE queue = 'w'"), $segments, 'one more');
}
$session->query_safe('COMMIT');
$session->quit;
is($node->safe_psql('postgres', "SELECT count(*) FROM queue.dequeue('w', 1000)"), 501, 'all of it comes');

# Nobody looks at the pages of a large transaction before it has ended.
$node->safe_psql('postgres', "SELECT queue.create('v')");
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe(q{SELECT count(queue.enqueue_batch('v', array_fill('1'::jsonb, ARRAY[1000]))) FROM generate_series(1, 100)});
my $plan = $node->safe_psql('postgres', q{
	SELECT FROM queue.dequeue('w');
	SELECT queue.enqueue('v', '"live"');
	EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT queue.ack(receipt) FROM queue.dequeue('v')});
$plan =~ s/^[^\[]*//;
$plan = decode_json($plan)->[0]{Plan};
is($plan->{'Actual Rows'} + 0, 1, 'one that is ready behind it');
cmp_ok($plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'}, '<', 200, 'is found at once');
$session->query_safe('COMMIT');
$session->quit;
is(join(' ', map { $node->safe_psql('postgres', "SELECT count(*) FROM queue.pop('v', 10000)") } 1 .. 11), '10000 ' x 10 . '0', 'what has committed comes');
check_ok($node);
$node->stop;
done_testing();
