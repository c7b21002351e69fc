# SIGKILL to the postmaster under load: what was committed is there, what was acked is not, leases are void.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use IPC::Run;
use Test::More;

my $node = new_node('main', conf => "fsync = on\nsynchronous_commit = on\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "max_attempts": 0, "segment_size": "64kB"}');
	CREATE TABLE sent (n bigint);
	CREATE TABLE worked (n bigint);
	CREATE SEQUENCE numbers;
});

# The rows of "sent" and "worked" are committed with the message and its ack.
my $dir = $node->basedir;
append_to_file("$dir/produce.sql", q{
\set roll random(1, 10)
BEGIN;
SELECT nextval('numbers') AS n \gset
INSERT INTO sent VALUES (:n);
SELECT queue.enqueue('q', to_jsonb(:n), headers => jsonb_build_object('fill', repeat(md5(:n::text), 8)));
\if :roll = 1
ROLLBACK;
\else
COMMIT;
\endif
});
append_to_file("$dir/consume.sql", q{
BEGIN;
WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 3)),
w AS (INSERT INTO worked SELECT payload::bigint FROM m)
SELECT count(queue.ack(receipt)) FROM m WHERE id IS NOT NULL;
COMMIT;
});

my $killed = 0;
for my $round (1 .. 5)
{
	my @loads;
	my $output = '';

	push @loads, IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '60', '-f', "$dir/$_.sql", '-h', $node->host, '-p', $node->port, 'postgres' ],
		'>', \$output, '2>', \$output) foreach qw(produce consume);
	# wait for work to be done, then strike
	ok(await($node, "SELECT (SELECT count(*) FROM worked) > $killed + 200"), "round $round: work is done");
	my $held = $node->safe_psql('postgres', "SELECT coalesce(string_agg(receipt::text, ','), '') FROM queue.dequeue('q', 2, '1 h')");
	$killed = $node->safe_psql('postgres', 'SELECT count(*) FROM worked');
	$node->kill9;
	$_->finish foreach @loads;
	restart_until_up($node);

	is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '0', "round $round: no leases");
	foreach my $receipt (split(/,/, $held))
	{
		fails($node, "SELECT queue.ack('$receipt')", 'QU001', "round $round: a receipt from before is lost");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT n) FROM worked'), '0', "round $round: nothing was worked on twice");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM ((SELECT n FROM sent EXCEPT SELECT n FROM worked) EXCEPT SELECT payload::bigint FROM queues.q) AS lost'),
		'0', "round $round: nothing is lost");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT payload::bigint FROM queues.q INTERSECT SELECT n FROM worked) AS back'),
		'0', "round $round: nothing that was acked is back");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT payload::bigint FROM queues.q EXCEPT SELECT n FROM sent) AS ghost'),
		'0', "round $round: nothing that was rolled back is there");
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT payload) FROM queues.q') =~ /^(\d+)\|\1$/, 1, "round $round: each is there once");
	is($node->safe_psql('postgres', 'SELECT max(failures) FROM queues.q') || 0, '0', "round $round: a crash counts no failure");
	check_ok($node);
	$killed = $node->safe_psql('postgres', 'SELECT count(*) FROM worked');
}
my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM queues.q');
is(take_all($node, 'q', 'count(queue.ack(receipt))'), $left, 'all that is left is delivered');
check_ok($node);
$node->stop;
done_testing();
