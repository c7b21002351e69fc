# Limits that are reached, and what was tampered with: the right error, nothing lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.map_memory = '256kB'\nqueue.max_queues = 256\nqueue.max_segments = 512");
my $n = 80;

# SQLSTATE and message of what a query ends with.
sub outcome
{
	my ($query, $database) = @_;
	my (undef, undef, $stderr) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$query");

	return $stderr =~ /ERROR:\s+(.*)/ ? $1 : $stderr;
}

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE FUNCTION each(what text, n int, OUT done int, OUT refused int) LANGUAGE plpgsql AS
	$$
	BEGIN
		done := 0;
		refused := 0;
		FOR i IN 1 .. n LOOP
			BEGIN
				EXECUTE format(what, 'q' || i);
				done := done + 1;
			EXCEPTION WHEN configuration_limit_exceeded THEN
				refused := refused + 1;
			END;
		END LOOP;
	END
	$$;
});
$node->safe_psql('postgres', "SELECT queue.create('q' || n, '{\"dead_letter\": \"\", \"backoff\": \"none\"}') FROM generate_series(1, $n) n");

# what a queue's segment needs of the map stays with it: 256 kB has no room for so many
is($node->safe_psql('postgres', "SELECT * FROM each('SELECT queue.enqueue(%L, ''1'')', $n)"), "$n|0", 'enqueue needs no map');
my ($held, $refused) = split /\|/, $node->safe_psql('postgres', "SELECT * FROM each('SELECT queue.dequeue(%L)', $n)");
note("$held leases, then $refused times no memory");
cmp_ok($held, '>', $n / 2, 'leases until the map is full');
cmp_ok($refused, '>', 0, 'then 53400');
like(outcome("SELECT queue.dequeue('q$n')"), qr/^53400: no map memory left/, 'dequeue without map memory');
like(outcome("SELECT queue.purge('q$n')"), qr/^53400: no map memory left/, 'purge without map memory');
like(outcome("SELECT queue.cancel('q$n', (SELECT id FROM queues.q$n))"), qr/^53400: no map memory left/, 'cancel without map memory');
is($node->safe_psql('postgres', q{SELECT status FROM queue.health() WHERE "check" = 'map_memory'}), 'fail', 'health() says that it is full');
$node->safe_psql('postgres', "SELECT queue.drop('q' || n, true) FROM generate_series(1, $n / 2) n");
advance($node, '31 s');
ok(await($node, "SELECT count(*) = 0 FROM queue.leases"), 'a drop gives memory back, and the worker writes what timed out');
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series($n / 2 + 1, $n) n, queue.pop('q' || n)"), $n / 2, 'no message was lost');
$node->safe_psql('postgres', "SELECT queue.create('q' || n, '{\"dead_letter\": \"\"}') FROM generate_series(1, $n / 2) n");
check_ok($node);

# more segments than there is room for
$node->append_conf('postgresql.conf', "queue.max_segments = 16");
$node->restart;
my ($sent, $too_many) = split /\|/, $node->safe_psql('postgres', "SELECT * FROM each('SELECT queue.enqueue(%L, ''1'')', $n)");
note("$sent sent, then $too_many times no segment");
cmp_ok($sent, '>', 0, 'queues are used until there is no room for segments');
is($sent + $too_many, $n, 'then 53400');
like(outcome("SELECT queue.enqueue('q$n', '1')"), qr/^53400: too many queue segments are in use/, 'and says why');
$node->append_conf('postgresql.conf', "queue.max_segments = 512\nqueue.map_memory = '1MB'\nqueue.max_keys = 64");
$node->restart;
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, $n) n, queue.pop('q' || n)"), $sent, 'what was sent is there');
like($node->safe_psql('postgres', "SELECT * FROM each('SELECT queue.enqueue(%L, ''1'')', $n)"), qr/^$n\|0$/, 'with room for more all work');
check_ok($node);

# more keys than there is room for
my $health = q{SELECT value, status FROM queue.health() WHERE "check" = 'keys'};

$node->safe_psql('postgres', q{SELECT queue.create('line', '{"ordered": true, "on_dead": "block"}')});
$node->safe_psql('postgres', q{SELECT queue.enqueue('line', to_jsonb(n), key => 'key ' || n) FROM generate_series(1, 70) n});
$node->safe_psql('postgres', q{CREATE TABLE held AS SELECT receipt FROM queue.dequeue('line', 100)});
is($node->safe_psql('postgres', 'SELECT count(*) FROM held'), '64', 'what there is room for');
is($node->safe_psql('postgres', $health), '64 of 64|fail', 'health says so');
like(outcome(q{SELECT queue.dequeue('line')}), qr/^53400: no memory for keys left/, 'then 53400');
is($node->safe_psql('postgres', 'SELECT count(queue.reject(receipt)::text) FROM held'), '64', 'all of them die');
like(outcome(q{SELECT queue.dequeue('line')}), qr/^53400: no memory for keys left/, 'blocked, they need it still');
$node->restart;
like(outcome(q{SELECT queue.dequeue('line')}), qr/^53400: no memory for keys left/, 'after a restart too');
is($node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE queue.unblock('line', key)) FROM queue.blocked_keys('line')}), '64', 'unblocked');
is($node->safe_psql('postgres', q{SELECT count(*) FROM queue.pop('line', 100)}), '6', 'the others come');
is($node->safe_psql('postgres', $health), '0 of 64|ok', 'and all is given back');
check_ok($node);

# a message that is too large, counted with headers and key
my $size = q{SET queue.max_message_size = '1kB'; };
is(outcome($size . q{SELECT queue.enqueue('q1', to_jsonb(repeat('x', 1024)))}), '54000: message is too large', 'a payload');
is(outcome($size . q{SELECT queue.enqueue_bytes('q1', convert_to(repeat('x', 1025), 'UTF8'))}), '54000: message is too large', 'a body');
is(outcome($size . q{SELECT queue.enqueue('q1', '1', key => repeat('x', 1024))}), '54000: message is too large', 'a key');
is(outcome($size . q{INSERT INTO queues.q1 (payload, headers) VALUES ('1', jsonb_build_object('h', repeat('x', 1024)))}), '54000: message is too large', 'headers');
is(outcome($size . q{SELECT queue.enqueue_bytes('q1', convert_to(repeat('x', 1024), 'UTF8'))}), '', 'one of just that size goes');

# the functions of a queue's view, put on something else
$node->safe_psql('postgres', q{
	CREATE VIEW other AS SELECT 1::bigint AS id;
	CREATE TABLE plain (id bigint);
	CREATE TRIGGER i BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION queue._view_insert();
	CREATE TRIGGER d BEFORE DELETE ON plain FOR EACH ROW EXECUTE FUNCTION queue._view_delete();
	CREATE TRIGGER i INSTEAD OF INSERT ON other FOR EACH ROW EXECUTE FUNCTION queue._view_insert();
	CREATE TRIGGER d INSTEAD OF DELETE ON other FOR EACH ROW EXECUTE FUNCTION queue._view_delete();
	SET session_replication_role = replica;
	INSERT INTO plain VALUES (1);
});
like(outcome('INSERT INTO plain VALUES (2)'), qr/^39P01: queue\._view_insert\(\) is the trigger of a queue's view/, 'on a table');
like(outcome('DELETE FROM plain'), qr/^39P01: queue\._view_delete\(\) is a trigger of a queue's view/, 'on a table');
like(outcome('INSERT INTO other VALUES (2)'), qr/^42704: queue "other" does not exist/, 'on another view');
like(outcome('DELETE FROM other'), qr/^42704: queue "other" does not exist/, 'on another view');

# a segment that was tampered with past all guards
my $segment = $node->safe_psql('postgres', "SELECT segment::oid FROM queue.segments WHERE queue = 'q2' AND state = 'active'");
my $tamper = "SET allow_system_table_mods = on; UPDATE pg_class SET relrowsecurity = %s WHERE oid = $segment";
$node->safe_psql('postgres', sprintf($tamper, 'true'));
like(outcome("SELECT queue.enqueue('q2', '2')"), qr/^55000: segment ".*" was changed by hand/, 'nothing is stored in a segment that was changed by hand');
$node->safe_psql('postgres', sprintf($tamper, 'false'));
is(outcome("SELECT queue.enqueue('q2', '2')"), '', 'undone: all is well');

# functions that outlive the extension, or never had it
$node->safe_psql('postgres', 'CREATE DATABASE bare');
$node->safe_psql('bare', q{CREATE FUNCTION bare(text, jsonb, text, jsonb, int, interval, timestamptz, interval, text, jsonb) RETURNS bigint LANGUAGE C AS 'queue', 'queue_enqueue_json'});
like(outcome("SELECT bare('q1', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)", 'bare'), qr/^42704: extension "queue" is not installed in this database/, 'no extension');
check_ok($node);
$node->stop;
done_testing();
