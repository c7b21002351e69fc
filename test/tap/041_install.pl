# CREATE EXTENSION where somebody has the names already: it fails, and adopts nothing.

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
$node->safe_psql('postgres', 'CREATE ROLE shop LOGIN; CREATE DATABASE shop OWNER shop');
foreach my $schema ('queue', 'queues')
{
	$node->safe_psql('shop', "SET ROLE shop; CREATE SCHEMA $schema; CREATE TABLE $schema.orders AS SELECT 1 AS id");
	fails($node, 'CREATE EXTENSION queue', '42P06', "schema $schema exists: refused", 'shop');
	fails($node, 'CREATE EXTENSION IF NOT EXISTS queue', '42P06', 'with IF NOT EXISTS too', 'shop');
	is($node->safe_psql('shop', "SELECT count(*) FROM pg_extension WHERE extname = 'queue'"), '0', 'nothing is installed');
	is( $node->safe_psql('shop', "SELECT string_agg(n.nspname || '.' || c.relname, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'queue%'"),
		"$schema.orders", 'the schema is what it was, there is no other');
	is($node->safe_psql('shop', "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = '$schema'"), 'shop', 'and whose it was');
	is($node->safe_psql('shop', "SELECT count(*) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE l.lanname = 'c' AND p.prosrc LIKE 'queue\\_%'"), '0', 'no function is left');
	$node->safe_psql('shop', "DROP SCHEMA $schema CASCADE");
}
# a table of that name in a queue's place is not taken for the queue
$node->safe_psql('shop', 'SET ROLE shop; CREATE EXTENSION queue; CREATE TABLE queues.orders (id int)');
fails($node, "SELECT queue.create('orders')", '42710', 'a table has the name of a queue', 'shop');
fails($node, "SELECT queue.enqueue('orders', '1')", '42704', 'and is none', 'shop');
$node->safe_psql('shop', 'DROP TABLE queues.orders');
is($node->safe_psql('shop', "SET ROLE shop; SELECT queue.create('orders'); SELECT queue.enqueue('orders', '1') > 0"), "queues.orders\nt", 'out of the way, all works');
check_ok($node, 'shop');
$node->stop;
done_testing();
