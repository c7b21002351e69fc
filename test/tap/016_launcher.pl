# The launcher and databases in which no worker can run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;
use Time::HiRes qw(sleep time);

# Until a pattern is so many times in the log; true, or false after the limit.
sub await_log
{
	my ($node, $pattern, $times, $limit) = @_;
	my $until = time + $limit;

	while (time < $until)
	{
		my $seen = () = slurp_file($node->logfile) =~ /$pattern/g;
		return 1 if $seen >= $times;
		sleep(0.05);
	}
	return 0;
}

# what an interrupted DROP DATABASE leaves
my $node = new_node('main', conf => 'max_worker_processes = 16');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE invalid');
$node->safe_psql('postgres', 'CREATE DATABASE damaged');
my $damaged = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'damaged'");
$node->safe_psql('postgres', "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'");
$node->stop;
my $version = $node->data_dir . "/base/$damaged/PG_VERSION";
rename($version, "$version.away") or die "could not rename $version: $!";
unlink($node->logfile);
$node->start;

# a worker that ends at connect
my $failure = qr/FATAL:  "base\/$damaged" is not a valid data directory/;
ok(await_log($node, $failure, 1, 20), 'a worker cannot connect');
my $began = time;
ok(await_log($node, $failure, 4, 60), 'it is tried again');
cmp_ok(time - $began, '>', 5, 'less and less often');
foreach my $name (qw(one two))
{
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION queue');
	ok(await_worker($node, $name, 1, 5), "others have theirs: $name");
}
unlike(slurp_file($node->logfile), qr/cannot connect to invalid database/, 'none is started in an invalid database');
rename("$version.away", $version) or die "could not rename $version: $!";
$node->safe_psql('damaged', 'CREATE EXTENSION queue');
ok(await_worker($node, 'damaged', 1, 5), 'CREATE EXTENSION ends the pause');
my $pid = worker_pid($node, 'damaged');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
ok(await_worker($node, 'damaged', 1, 5), 'a worker that worked is back soon');
$node->stop;

# no room for all
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
unlink($node->logfile);
$node->start;
my $lacking = qr/queue could not start a worker for every database/;
ok(await_log($node, $lacking, 1, 20), 'what is lacking is said');
foreach my $round (1 .. 5)
{
	$node->safe_psql('postgres', 'CREATE EXTENSION queue');
	$node->safe_psql('postgres', 'DROP EXTENSION queue');
	$node->safe_psql('postgres', "CREATE DATABASE more$round");
}
# The launcher, told again, has looked again: it starts the worker of one that has gone.
my $some = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue worker' LIMIT 1");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($some, 10000)");
ok(await($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'queue worker' AND pid <> $some)", limit => 20), 'it goes on looking');
my $said = () = slurp_file($node->logfile) =~ /$lacking/g;
is($said, 1, 'once');
$node->stop;
done_testing();
