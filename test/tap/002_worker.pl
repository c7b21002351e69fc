# The worker follows its database: extensions and databases that come, go, are renamed and copied.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => 'max_worker_processes = 16');
$node->start;
ok(await($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'queue launcher')"), 'the launcher runs');
is(worker_pid($node), '', 'no worker where there is no extension');

$node->safe_psql('postgres', 'CREATE EXTENSION queue');
ok(await_worker($node, 'postgres', 1, 5), 'CREATE EXTENSION starts it');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION queue; ROLLBACK');
ok(await_worker($node, 'postgres', 1, 5), 'DROP EXTENSION that is rolled back leaves it');
$node->safe_psql('postgres', 'DROP EXTENSION queue');
ok(await_worker($node, 'postgres', 0, 5), 'DROP EXTENSION stops it');
$node->safe_psql('postgres', 'BEGIN; CREATE EXTENSION queue; ROLLBACK');
$node->safe_psql('postgres', 'CREATE EXTENSION queue');
ok(await_worker($node, 'postgres', 1, 5), 'and again');

# a new database; its owner is no superuser
$node->safe_psql('postgres', "CREATE ROLE app LOGIN; CREATE DATABASE shop OWNER app");
$node->safe_psql('shop', 'CREATE EXTENSION queue', extra_params => [ '-U', 'app' ]);
ok(await_worker($node, 'shop', 1, 5), 'the owner of a database gets a worker');
$node->safe_psql('shop', q{
	SELECT queue.create('orders', '{"max_attempts": 1, "backoff": "none"}');
	SELECT queue.enqueue('orders', to_jsonb(n)) FROM generate_series(1, 3) n;
}, extra_params => [ '-U', 'app' ]);
my $receipt = take($node, 'orders', 'shop');
$node->safe_psql('shop', "BEGIN; SELECT * FROM queue.dequeue('orders'); ROLLBACK");
ok(await($node, "SELECT count(*) FROM queues.orders_dead", database => 'shop', expected => '1'), 'it moves dead letters');

# copies
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop');
ok(await_worker($node, 'copy', 1, 5), 'the copy has a worker');
ok(await_worker($node, 'shop', 1, 5), 'and the original again');
is(values_of($node, 'orders', 'copy'), '1 3', 'messages are copied');
is($node->safe_psql('copy', "SELECT count(*) FROM queue.leases"), '0', 'leases are not');
fails($node, "SELECT queue.ack('$receipt')", 'QU001', 'a receipt of the original does not touch the copy', 'copy');
fails($node, "SELECT queue.release('$receipt')", 'QU001', 'nor releases there', 'copy');
is(values_of($node, 'orders', 'copy'), '1 3', 'the copy is whole');
my $copied = take($node, 'orders', 'copy');
fails($node, "SELECT queue.ack('$copied')", 'QU001', 'nor the other way round', 'shop');
$node->safe_psql('shop', "SELECT queue.ack('$receipt')");
$node->safe_psql('copy', "SELECT queue.ack('$copied')");
is(values_of($node, 'orders', 'shop'), '3', 'each acked its own');
is(values_of($node, 'orders', 'copy'), '3', 'each in its own');
check_ok($node, 'shop', 'copy');

# renames, drops
my $pid = worker_pid($node, 'copy');
$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO twin');
ok(await_worker($node, 'twin', 1, 5), 'the worker is back after a rename');
is($node->safe_psql('twin', "SELECT payload FROM queue.dequeue('orders')"), '3', 'and the queue works');
$node->safe_psql('postgres', 'DROP DATABASE twin');
ok(await_worker($node, 'twin', 0, 5), 'its worker is gone');
is(sqlstate($node, 'DROP DATABASE nowhere'), '3D000', 'what fails, fails as it does');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
is(worker_pid($node, 'plain'), '', 'none in a database without the extension');
$node->safe_psql('postgres', 'DROP DATABASE plain');
my $busy = $node->background_psql('shop');
$busy->query_safe('SELECT 1');
fails($node, 'DROP DATABASE shop', '55006', 'a database in use is not dropped');
ok(await_worker($node, 'shop', 1, 10), 'and gets its worker back');
$busy->quit;
$node->safe_psql('postgres', 'DROP DATABASE shop');

# slots and states of dropped databases are free again
$node->safe_psql('postgres', "SELECT queue.create('q')");
for my $round (1 .. 3)
{
	$node->safe_psql('postgres', 'CREATE DATABASE brief');
	$node->safe_psql('brief', q{
		CREATE EXTENSION queue;
		SELECT queue.create('q');
		SELECT queue.enqueue('q', '1');
		SELECT count(*) FROM queue.dequeue('q');
	});
	$node->safe_psql('postgres', 'DROP DATABASE brief');
}
check_ok($node);
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
