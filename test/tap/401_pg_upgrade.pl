# pg_upgrade carries queues over as they are.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $old = new_node('old');
plan skip_all => 'pg_upgrade does not search dynamic_library_path'
  if $old->pg_version->major >= 18;
$old->start;
$old->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE ROLE consumer LOGIN;
	SELECT queue.create('q', '{"backoff": "none", "segment_size": "64kB"}');
	GRANT UPDATE ON queues.q TO consumer;
	SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', repeat(md5(n::text), 30)))) FROM generate_series(1, 300) n;
	SELECT queue.enqueue('q', '1000', delay => '1 h');
	SELECT queue.enqueue('q', to_jsonb(repeat('large', 100000)));
	SELECT queue.reject(receipt, 'poison') FROM queue.dequeue('q', 3);
	SELECT count(queue.ack(receipt)) FROM queue.dequeue('q', 10);
	SELECT queue.nack(receipt, 'broken') FROM queue.dequeue('q', 3);
});
my $receipt = take($old, 'q');
my $facts = q{SELECT count(*), sum(id), md5(string_agg(payload::text || failures || coalesce(last_error, ''), ',' ORDER BY id)) FROM queues.q};
my $before = $old->safe_psql('postgres', $facts);
my $dead = $old->safe_psql('postgres', 'SELECT count(*) FROM queues.q_dead');
my $last = $old->safe_psql('postgres', 'SELECT max(id) FROM queues.q');
$old->stop;

my $new = new_node('new');
my $bin = $old->config_data('--bindir');
my $work = $new->basedir;
chdir $work;
command_ok(
	[
		'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
		'-s', $new->host, '-p', $old->port, '-P', $new->port, '-U', scalar getpwuid($<)
	],
	'pg_upgrade');
$new->start;
is($new->safe_psql('postgres', $facts), $before, 'the same messages');
is($new->safe_psql('postgres', 'SELECT count(*) FROM queues.q_dead'), $dead, 'and dead letters');
fails($new, "SELECT queue.ack('$receipt')", 'QU001', 'a receipt from before is void');
ok(await_worker($new, 'postgres', 1, 10), 'the worker runs');
is(take_all($new, 'q', 'count(*), count(DISTINCT id), max(attempt)', extra_params => [ '-U', 'consumer' ]), '288|288|2',
	'all can be had by whom it was granted');
cmp_ok($new->safe_psql('postgres', "SELECT queue.enqueue('q', '2000')"), '>', $last, 'ids go on');
$new->safe_psql('postgres', "SELECT queue.create('another'); SELECT queue.enqueue('another', '1'); SELECT queue.drop('another', true)");
check_ok($new);
fails($new, 'DROP VIEW queues.q', '55000', 'the guard knows its views');
$new->safe_psql('postgres', 'DROP EXTENSION queue CASCADE');
is($new->safe_psql('postgres', "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'queue%'"), '0', 'it can be dropped as a whole');
$new->stop;
done_testing();
