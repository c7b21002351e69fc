# DROP EXTENSION refuses while queues exist; CASCADE removes everything, from memory too.

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
	SELECT queue.create('q');
	SELECT queue.enqueue('q', '1'), queue.enqueue('q', '2');
});
my $receipt = take($node, 'q');
my ($status, $stdout, $stderr) = $node->psql('postgres', 'DROP EXTENSION queue');
isnt($status, 0, 'it refuses');
like($stderr, qr/view queues\.q depends|other objects depend/, 'and says what depends on it');
is(values_of($node, 'q'), '1 2', 'nothing happened');
fails($node, 'DROP SCHEMA queues CASCADE', '2BP01', 'a schema of it cannot be dropped');
fails($node, 'DROP VIEW queues.q', '55000', 'nor a view');
fails($node, 'DROP OWNED BY CURRENT_USER', '2BP01', 'nor by DROP OWNED');

$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION queue CASCADE; ROLLBACK');
is(values_of($node, 'q'), '1 2', 'rolled back: all is there');
$node->safe_psql('postgres', "SELECT queue.extend('$receipt')");
is($node->safe_psql('postgres', "SELECT payload FROM queue.dequeue('q')"), '2', 'leases too');

$node->safe_psql('postgres', 'DROP EXTENSION queue CASCADE');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname LIKE 'queue%'"),
	'0', 'CASCADE: no relation is left');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'queue%'"), '0', 'no schema');
ok(await_worker($node, 'postgres', 0, 5), 'the worker leaves');

$node->safe_psql('postgres', "CREATE EXTENSION queue; SELECT queue.create('q'); SELECT queue.enqueue('q', '3')");
fails($node, "SELECT queue.ack('$receipt')", 'QU001', 'an old receipt means nothing');
is($node->safe_psql('postgres', "SELECT string_agg(payload::text, ' ') FROM queue.dequeue('q', 10)"), '3', 'a new life');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '1', 'one lease, no older ones');
check_ok($node);

# in one transaction: ids begin anew, while memory still knows the old queue of that id
$node->safe_psql('postgres', q{
	BEGIN;
	DROP EXTENSION queue CASCADE;
	CREATE EXTENSION queue;
	SELECT queue.create('q');
	SELECT queue.enqueue('q', '4');
	COMMIT;
	SELECT queue.enqueue('q', '5');
});
is($node->safe_psql('postgres', "SELECT string_agg(payload::text, ' ') FROM queue.dequeue('q', 10)"), '4 5', 'dropped and made again at once');
$node->safe_psql('postgres', q{
	BEGIN;
	DROP EXTENSION queue CASCADE;
	CREATE EXTENSION queue;
	SELECT queue.create('q');
	SELECT queue.enqueue('q', '6');
	ROLLBACK;
});
is($node->safe_psql('postgres', 'SELECT count(*) FROM queue.leases'), '2', 'and rolled back: the leases are still there');
check_ok($node);

# over and over, with leases open: nothing in memory runs out
$node->append_conf('postgresql.conf', "queue.max_leases = 64\nqueue.max_queues = 16\nqueue.max_segments = 16");
$node->restart;
for my $round (1 .. 40)
{
	$node->safe_psql('postgres', q{
		DROP EXTENSION IF EXISTS queue CASCADE;
		CREATE EXTENSION queue;
		SELECT queue.create('a'), queue.create('b');
		SELECT queue.enqueue('a', to_jsonb(n)), queue.enqueue('b', to_jsonb(n)) FROM generate_series(1, 5) n;
		SELECT count(*) FROM queue.dequeue('a', 5);
		SELECT queue.drop('b', true);
		SELECT queue.create('b'); SELECT queue.enqueue('b', '1');
	});
}
is(attempts_of($node, 'b'), '1:1', 'after forty rounds it still works');
check_ok($node);
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
