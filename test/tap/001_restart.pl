# A restart keeps messages, failures and delays, and voids every lease.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none"}');
	SELECT queue.create('untouched');
	SELECT queue.enqueue('q', to_jsonb(n)) FROM generate_series(1, 9) n;
	SELECT queue.enqueue('q', '10', delay => '1 h');
	SELECT queue.enqueue('q', '11', ttl => '1 h');
	SELECT queue.enqueue('untouched', '"there"');
});

# 1 acked, 2 leased, 3 nacked, 4 failed by an abort, 5 acked but not committed
$node->safe_psql('postgres', "SELECT queue.ack(receipt) FROM queue.dequeue('q')");
my $receipt = take($node, 'q');
my $nacked = take($node, 'q');
$node->safe_psql('postgres', "SELECT queue.nack('$nacked', 'broken')");
$node->safe_psql('postgres', "CREATE TABLE held AS SELECT * FROM queue.dequeue('q', 1, '1 h')");
my $session = $node->background_psql('postgres');
$session->query_safe("BEGIN");
$session->query_safe("SELECT queue.ack(receipt) FROM queue.dequeue('q')");
$node->safe_psql('postgres', "BEGIN; SELECT * FROM queue.dequeue('q'); ROLLBACK");
ok(await($node, "SELECT count(*) FROM queue.leases WHERE state = 'cooling'", expected => '0'), 'the failure of an abort is written');

my $held = $node->safe_psql('postgres', 'SELECT receipt FROM held');
my $before = values_of($node, 'q');
my $last = $node->safe_psql('postgres', 'SELECT max(id) FROM queues.q');
$node->restart;
$session->quit;

is(values_of($node, 'q'), $before, 'the same messages are there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '0', 'nobody holds anything');
foreach my $call ("queue.ack('$receipt')", "queue.nack('$receipt')", "queue.extend('$receipt')", "queue.release('$receipt')",
	"queue.reject('$receipt')", "queue.ack('$held')")
{
	fails($node, "SELECT $call", 'QU001', "$call: the lease is lost");
}
is($node->safe_psql('postgres', "SELECT string_agg(status, ' ') FROM queue.try_ack(ARRAY['$receipt', '$held']::uuid[])"),
	'lost lost', 'old receipts are lost');
# The end of the session that held 5 is a failure of it, which is on disk if
# the worker wrote it before it ended too, and forgotten if it did not.
like(attempts_of($node, 'q'), qr/^11:1 2:1 3:2 4:1 5:[12] 6:2 7:1 8:1 9:1$/, 'all can be had again, with the failures they had');
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT last_error, ', ' ORDER BY last_error) FROM queues.q"),
	'broken, transaction was rolled back', 'and the errors');
advance($node, '61 min');
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('untouched')"), '"there"', 'a queue that nobody used before the restart');
like(attempts_of($node, 'q'), qr/\b10:1\b/, 'the delayed one came');
ok($node->safe_psql('postgres', "SELECT queue.enqueue('q', '12')") > $last, 'ids go on');
ok(await($node, "SELECT bool_and(exact) FROM queue.stats"), 'counts are exact again');
check_ok($node);

$node->stop('immediate');
$node->start;
check_ok($node);

# What a restart reads from the catalog may have been put there by hand: whoever owns the extension may
# write to it, for pg_restore, and must not reach other people's tables that way.
$node->safe_psql('postgres', q{
	SELECT queue.create('forged', '{"dead_letter": ""}');
	CREATE TABLE bystander (LIKE queues.segment_of_queue_0000000001_number_0000000001__________________);
	INSERT INTO bystander SELECT id, now(), '-infinity', NULL, NULL, NULL, 0, 0, 0, 0, NULL, NULL, NULL, '1', NULL, NULL FROM generate_series(1, 3) id;
	INSERT INTO queue._segment SELECT 'bystander'::regclass, id, 7 FROM queue._queue WHERE view = 'queues.forged'::regclass;
});
my $id = $node->safe_psql('postgres', "SELECT id FROM queue._queue WHERE view = 'queues.forged'::regclass");
my $misfit = sprintf('queues.segment_of_queue_%010d_number_%010d', $id, 8) . '_' x 18;
$node->safe_psql('postgres', qq{
	CREATE TABLE $misfit (id text);
	INSERT INTO $misfit VALUES ('not a message');
	INSERT INTO queue._segment VALUES ('$misfit', $id, 8);
});
$node->restart;
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.forged"), '0', 'no foreign row is shown as a message');
is($node->safe_psql('postgres', "SELECT count(*) FROM queue.dequeue('forged', 10)"), '0', 'none is delivered');
is($node->safe_psql('postgres', "SELECT queue.purge('forged')"), '0', 'none is purged');
$node->safe_psql('postgres', "SELECT queue.enqueue('forged', '1'); SELECT queue.ack(receipt) FROM queue.dequeue('forged')");
$node->safe_psql('postgres', "SELECT queue.drop('forged', true)");
is($node->safe_psql('postgres', 'SELECT count(*) FROM bystander'), '3', 'and the table stays');
$node->stop;
done_testing();
