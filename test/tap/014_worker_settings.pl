# The worker works whatever a database, a role or the file sets for clients.

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
	CREATE ROLE weak;
	CREATE DATABASE odd;
});

my %odd = (
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	lock_timeout => '1ms',
	statement_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	row_security => 'off',
	search_path => 'nowhere',
	session_replication_role => 'replica',
	role => 'weak');
$odd{transaction_timeout} = '1ms' if $node->pg_version >= 17;

# What our own sessions set against all that.
my %plain = (search_path => 'public', session_replication_role => 'origin', role => 'none',
	default_transaction_isolation => 'read\\ committed');
my $plain = join(' ', map { "-c $_=" . ($plain{$_} // (/timeout/ ? '0' : 'off')) } sort keys %odd);

sub works
{
	my ($queue) = @_;

	local $ENV{PGOPTIONS} = $plain;
	$node->safe_psql('odd', qq{SELECT queue.create('$queue', '{"max_attempts": 1, "backoff": "none", "segment_size": "64kB"}')});
	$node->safe_psql('odd', qq{SELECT count(queue.enqueue('$queue', to_jsonb(repeat(md5(n::text), 30)))) FROM generate_series(1, 50) n}) for 1 .. 5;
	ok(await($node, "SELECT count(*) > 1 FROM queue.segments WHERE queue = '$queue'", database => 'odd', limit => 20), "$queue: segments are made");
	$node->safe_psql('odd', "BEGIN; SELECT count(*) FROM queue.dequeue('$queue'); ROLLBACK");
	ok(await($node, "SELECT count(*) FROM queues.${queue}_dead", database => 'odd', expected => '1', limit => 20), "$queue: failures are written");
}

$node->safe_psql('odd', 'CREATE EXTENSION queue');
$node->safe_psql('postgres', "ALTER DATABASE odd SET $_ = '$odd{$_}'") foreach sort keys %odd;
ok(await_worker($node, 'odd', 1, 20), 'the worker runs');
$node->safe_psql('postgres', "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE backend_type = 'queue worker'");
ok(await_worker($node, 'odd', 1, 20), 'and again, with the settings of its database');
works('a');

# a reload does not bring them
delete @odd{qw(role search_path session_replication_role)};
$node->append_conf('postgresql.conf', join('', map { "$_ = '$odd{$_}'\n" } grep { !/^(statement|transaction)_timeout/ } sort keys %odd));
$node->reload;
ok(await($node, "SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'", expected => 'on'), 'reloaded');
works('b');
unlike(slurp_file($node->logfile), qr/ERROR:/, 'no step failed');
$node->stop;
done_testing();
