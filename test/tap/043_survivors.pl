# What is left of old segments is moved, so that they can be emptied; what somebody holds stays.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.reclaim_delay = '20s'\nqueue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"segment_size": "64kB", "lease_max": "1 d", "backoff": "none"}');
	CREATE FUNCTION fill(n int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(queue.enqueue('q', to_jsonb(i), key => 'k' || i, headers => jsonb_build_object('fill', (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 30) j))))
	   FROM generate_series(1, n) i $$;
});
ok(await_worker($node, 'postgres', 1), 'the worker runs');
my $sealed = "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'";
my $left = "SELECT count(*), md5(string_agg(concat_ws(',', id, enqueued_at, failures, payload, key, headers, last_error), ';' ORDER BY id)) FROM queues.q";
my $where = "SELECT string_agg(number::text, ',' ORDER BY number) FROM queue.segments WHERE queue = 'q' AND live > 0";

# one message of each 240 stays
sub leave_one
{
	my ($turns) = @_;
	for my $turn (1 .. $turns)
	{
		$node->safe_psql('postgres', "SELECT fill(80)") for 1 .. 3;
		$node->safe_psql('postgres', "DELETE FROM queues.q q WHERE id > (SELECT min(id) FROM queues.q o WHERE payload = '80' AND id > (SELECT coalesce(max(id), 0) FROM kept)) OR payload <> '80'");
		$node->safe_psql('postgres', "INSERT INTO kept SELECT id FROM queues.q ON CONFLICT DO NOTHING");
	}
}

# A purge leaves out what the worker is just moving.
sub purge_all
{
	ok(await($node, "SELECT queue.purge('q', '{\"states\": [\"ready\", \"leased\", \"failed\", \"delayed\"]}') IS NOT NULL AND (SELECT count(*) FROM queues.q) = 0"),
		'all is purged');
}
$node->safe_psql('postgres', 'CREATE TABLE kept (id bigint PRIMARY KEY)');
leave_one(12);
is($node->safe_psql('postgres', 'SELECT count(*) FROM queues.q'), '12', 'twelve are left');
cmp_ok($node->safe_psql('postgres', $sealed), '>=', 12, 'and keep their segments');

# one of them has failed and is settled in a transaction that goes on, another is leased
$node->safe_psql('postgres', "SELECT queue.nack(receipt, 'broken', '0') FROM queue.dequeue('q')");
my $leased = $node->safe_psql('postgres', "SELECT receipt FROM queue.dequeue('q', 1, '10 h')");
my $open = $node->background_psql('postgres');
$open->query_safe('BEGIN');
$open->query_safe("SELECT queue.ack(receipt) FROM queue.dequeue('q', 1, '10 h')");
my $before = $node->safe_psql('postgres', $left);

for (1 .. 20)
{
	advance($node, '4 s');
	sleep(1) if $node->safe_psql('postgres', $sealed) > 2;
}
ok(await($node, "SELECT ($sealed) BETWEEN 1 AND 2"), 'all other segments are emptied')
	or diag($node->safe_psql('postgres', "SELECT number, state, size, live, kept_because FROM queue.segments WHERE queue = 'q'"));
is($node->safe_psql('postgres', $left), $before, 'what is left is what it was');
$open->query_safe('ROLLBACK');
$open->quit;
$node->safe_psql('postgres', "SELECT queue.ack('$leased')");
is(attempts_of($node, 'q'), join(' ', ('80:1') x 10, '80:3'), 'each comes once, the failures as before');
check_ok($node);

# a backlog that nobody touches stays where it is
purge_all();
$node->safe_psql('postgres', 'SELECT fill(200)') for 1 .. 4;
my $places = $node->safe_psql('postgres', $where);
advance($node, '40 s') for 1 .. 3;
ok(await($node, $sealed . " AND kept_because = 'messages are left in it' AND live > 0", expected => $node->safe_psql('postgres', "$sealed AND live > 0")), 'the worker has looked at a backlog');
is($node->safe_psql('postgres', $where), $places, 'and left it alone');

# moved and moved again, with the server dying in between
purge_all();
$node->safe_psql('postgres', 'TRUNCATE kept');
for my $turn (1 .. 4)
{
	leave_one(4);
	$before = $node->safe_psql('postgres', $left);
	advance($node, '40 s');
	$node->stop('immediate') if $turn % 2 == 0;
	$node->start if $turn % 2 == 0;
	advance($node, '40 s');
	ok(await($node, "SELECT ($sealed) <= 2", limit => 60), "turn $turn: few segments are kept")
		or diag($node->safe_psql('postgres', "SELECT number, state, size, live, kept_because FROM queue.segments WHERE queue = 'q'"));
	is($node->safe_psql('postgres', $left), $before, "turn $turn: the messages are what they were");
}

# who consumes comes back after a restart: what is ready stays where it is at first
leave_one(4);
$places = $node->safe_psql('postgres', $where);
$node->restart;
ok(await($node, "$sealed AND live > 0 AND kept_because = 'messages are left in it' HAVING count(*) >= 4"
	. " AND count(*) = (SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed')", expected => $node->safe_psql('postgres', "$sealed AND live > 0")), 'after a restart the worker has looked at all segments');
advance($node, '25 s');
sleep(1);
is($node->safe_psql('postgres', $where), $places, 'and moved nothing');
advance($node, '40 s');
ok(await($node, "SELECT ($sealed) <= 2", limit => 60), 'later it does');
is(take_all($node, 'q', 'count(*), count(DISTINCT id), max(attempt)'), '20|20|1', 'each comes once');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|ERROR:/, 'no error in the log');
$node->stop;
done_testing();
