# Which commands send the worker out of a database, whose, and that it comes back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "allow_in_place_tablespaces = on\nmax_worker_processes = 16");
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE weak LOGIN;
	CREATE ROLE maker LOGIN CREATEDB;
	CREATE ROLE app LOGIN;
});
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('postgres', 'CREATE DATABASE t OWNER app');
$node->safe_psql('t', 'CREATE EXTENSION queue');
ok(await_worker($node, 't', 1, 10), 'the worker runs');

# The SQLSTATE of a command of a role, and whether the worker was left alone.
sub worker_stays
{
	my ($role, $command, $state) = @_;
	my $pid = worker_pid($node, 't');
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$command", extra_params => [ '-U', $role ]);

	is($stderr =~ /ERROR:\s+([0-9A-Z]{5})/ ? $1 : '00000', $state, "$role: $command");
	is(worker_pid($node, 't'), $pid, 'the worker stays');
}

foreach my $command ('ALTER DATABASE t CONNECTION LIMIT 7', 'ALTER DATABASE t RENAME TO u', 'ALTER DATABASE t SET TABLESPACE elsewhere',
	'DROP DATABASE t', 'CREATE DATABASE c TEMPLATE t')
{
	worker_stays('weak', $command, '42501');
	worker_stays('maker', $command, '42501');
}
worker_stays('app', 'ALTER DATABASE t RENAME TO u', '42501');
worker_stays('app', 'ALTER DATABASE t CONNECTION LIMIT 7', '00000');
worker_stays('app', 'ALTER DATABASE t CONNECTION LIMIT -1', '00000');

# who may, can
$node->safe_psql('postgres', 'GRANT CREATE ON TABLESPACE elsewhere TO app');
$node->safe_psql('postgres', 'ALTER DATABASE t SET TABLESPACE elsewhere', extra_params => [ '-U', 'app' ]);
ok(await_worker($node, 't', 1, 10), 'the worker is back after SET TABLESPACE');
$node->safe_psql('postgres', 'ALTER ROLE app CREATEDB');
$node->safe_psql('postgres', 'CREATE DATABASE c TEMPLATE t', extra_params => [ '-U', 'app' ]);
ok(await_worker($node, 't', 1, 10), 'the worker is back after a copy');
ok(await_worker($node, 'c', 1, 10), 'the copy has one');
$node->safe_psql('postgres', 'DROP DATABASE c', extra_params => [ '-U', 'app' ]);
$node->safe_psql('postgres', 'ALTER DATABASE t IS_TEMPLATE true');
$node->safe_psql('postgres', 'CREATE DATABASE c TEMPLATE t', extra_params => [ '-U', 'maker' ]);
$node->safe_psql('postgres', 'DROP DATABASE c', extra_params => [ '-U', 'maker' ]);
$node->safe_psql('postgres', 'ALTER DATABASE t IS_TEMPLATE false');
ok(await_worker($node, 't', 1, 10), 'the worker is back when its database is no template any more');

# a command that is terminated while it waits for others to leave
my $busy = $node->background_psql('t');
$busy->query_safe('SELECT 1');
my $copier = $node->background_psql('postgres', on_error_stop => 0);
$copier->query_until(qr/begins/, "\\echo begins\nCREATE DATABASE c TEMPLATE t;\n");
ok(await_worker($node, 't', 0, 10), 'the worker left for a copy');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE c%'"), 't',
	'the session that copies is terminated');
$busy->quit;
ok(await_worker($node, 't', 1, 20), 'the worker is back');
$copier->{run}->finish;
check_ok($node, 't');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
