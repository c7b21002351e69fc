# What is wrong with one queue, or in one queue's way, does not stop the worker for the others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.worker_interval = '100ms'");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('stuck', '{"max_attempts": 1}'), queue.create('free', '{"max_attempts": 1}'), queue.create('orphaned', '{"max_attempts": 1}');
	SELECT count(queue.enqueue('stuck', to_jsonb(n))) FROM generate_series(1, 400) n;
	SELECT count(queue.enqueue('orphaned', to_jsonb(n))) FROM generate_series(1, 400) n;
	SELECT count(queue.enqueue('free', to_jsonb(n))) FROM generate_series(1, 3) n;
});

# a dead-letter queue that somebody has locked, and one that is gone by force
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE queues.stuck_dead IN ACCESS EXCLUSIVE MODE');
# The catalog is changed behind the extension's back: a GRANT tells the worker's cache.
$node->safe_psql('postgres', q{DELETE FROM queue._queue WHERE view = 'queues.orphaned_dead'::regclass; GRANT SELECT ON queues.orphaned_dead TO PUBLIC});
$node->safe_psql('postgres', "BEGIN; SELECT count(*) FROM queue.dequeue('$_', 1000); ROLLBACK") foreach qw(stuck orphaned free);
ok(await($node, 'SELECT count(*) FROM queues.free_dead', expected => '3', limit => 30), 'dead letters of another queue are written');
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.stuck"), '400', 'those of the locked one wait');
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.orphaned"), '400', 'and nothing is dropped where there is no dead-letter queue');
like(slurp_file($node->logfile), qr/the dead-letter queue of queue "orphaned" does not exist/, 'the log says so');
$locker->query_safe('COMMIT');
$locker->quit;
ok(await($node, 'SELECT count(*) FROM queues.stuck_dead', expected => '400'), 'once it is unlocked they go there');

# a table that has the name of the next segment, and one that is being made with the name after it
$node->safe_psql('postgres', q{SELECT queue.create('grows', '{"segment_size": "64kB"}')});
my $id = $node->safe_psql('postgres', "SELECT id FROM queue._queue WHERE view = 'queues.grows'::regclass");
my ($second, $third) = map { sprintf('queues.segment_of_queue_%010d_number_%010d', $id, $_) . '_' x 18 } 2, 3;
$node->safe_psql('postgres', "CREATE TABLE $second (squatter int)");
my $squatter = $node->background_psql('postgres');
$squatter->query_safe('BEGIN');
$squatter->query_safe("CREATE TABLE $third (squatter int)");
my $send = "SELECT count(queue.enqueue('grows', to_jsonb(repeat(md5(n::text), 30)))) FROM generate_series(1, 60) n";
$node->safe_psql('postgres', $send);
my $dead = "SELECT count(*) FROM queues.free_dead";
$node->safe_psql('postgres', "SELECT queue.enqueue('free', '4')");
$node->safe_psql('postgres', "BEGIN; SELECT count(*) FROM queue.dequeue('free'); ROLLBACK");
ok(await($node, $dead, expected => '4', limit => 30), 'the worker does not wait for somebody who is making that name');
$squatter->query_safe('COMMIT');
$squatter->quit;
$node->safe_psql('postgres', $send);
ok(await($node, "SELECT string_agg(number::text, ' ' ORDER BY number) FROM queue.segments WHERE queue = 'grows'", expected => '1 4'), 'it takes the next free name');
is(take_all($node, 'grows', 'count(*)'), '120', 'all can be had');

$node->safe_psql('postgres', "SELECT queue.alter('orphaned', '{\"dead_letter\": \"free_dead\"}')");
advance($node, '20 s');
ok(await($node, $dead, expected => '404'), 'what had no dead-letter queue goes to the one it is given');
$node->safe_psql('postgres', "DROP TABLE $second, $third");
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
