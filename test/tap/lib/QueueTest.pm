# QueueTest.pm
#	  What the TAP tests share: clusters with the queue preloaded, sessions, the
#	  worker, waiting for what other processes do.
#
# Nothing here sleeps to let time pass: await() looks again and again for
# something that another process is about to do, and gives up after a limit.

package QueueTest;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_node await sqlstate fails check_ok worker_pid await_worker
  advance take take_all restart_until_up attempts_of values_of make_send_and_drain);

# A cluster that is initialised, not started. Its settings come from
# TEMP_CONFIG; what is given as "conf" comes after them.
sub new_node
{
	my ($name, %params) = @_;
	my $conf = delete $params{conf};
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ], %params);
	$node->append_conf('postgresql.conf', "log_statement = none\n");
	$node->append_conf('postgresql.conf', "$conf\n") if defined $conf;
	return $node;
}

# Until the query returns what is expected ('t' unless given): true, or false
# after the limit in seconds.
sub await
{
	my ($node, $query, %params) = @_;
	my $database = $params{database} // 'postgres';
	my $expected = $params{expected} // 't';
	my $until = time + ($params{limit} // 60);
	my $got;

	do
	{
		# A psql that cannot connect may leave before it has read the query.
		my ($status, $stdout) = eval { $node->psql($database, $query) };
		$got = $stdout // '';
		return 1 if defined $status && $status == 0 && $got eq $expected;
		sleep(0.05);
	} while (time < $until);
	diag("waited in vain for: $query\nexpected: $expected\nlast seen: $got");
	return 0;
}

# The SQLSTATE that a query ends with; 00000 when it is well.
sub sqlstate
{
	my ($node, $query, $database) = @_;
	my ($status, $stdout, $stderr) = $node->psql($database // 'postgres', "\\set VERBOSITY sqlstate\n$query");

	return $stderr =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5})/ ? $1 : '00000';
}

sub fails
{
	my ($node, $query, $state, $name, $database) = @_;

	is(sqlstate($node, $query, $database), $state, $name);
}

# Take all that can be had of a queue, and return what the query says of these
# messages. A batch may leave out a page that somebody is busy with, as the worker
# is now and then, so there are as many as it takes.
sub take_all
{
	my ($node, $queue, $what, %params) = @_;
	my $database = delete $params{database} // 'postgres';

	return $node->safe_psql($database, qq{
		CREATE TEMP TABLE taken AS SELECT * FROM queue.dequeue('$queue') WITH NO DATA;
		DO \$\$ BEGIN
			LOOP
				INSERT INTO pg_temp.taken SELECT * FROM queue.dequeue('$queue', 1000);
				EXIT WHEN NOT FOUND;
			END LOOP;
		END \$\$;
		SELECT $what FROM pg_temp.taken;
	}, %params);
}

# Ends every test: what shared memory says is what the tables say.
sub check_ok
{
	my ($node, @databases) = @_;

	@databases = ('postgres') unless @databases;
	foreach my $database (@databases)
	{
		my $broken = $node->safe_psql($database, 'SELECT * FROM queue.check()');

		diag($broken) if $broken ne '';
		is($node->safe_psql($database, 'SELECT count(*) FROM queue.check()'), '0', "queue.check() finds nothing in $database");
	}
}

sub worker_query
{
	my ($database) = @_;

	return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue worker' AND datname = '$database'";
}

# Empty when there is none.
sub worker_pid
{
	my ($node, $database) = @_;

	return $node->safe_psql('postgres', worker_query($database // 'postgres'));
}

# Whether the worker of a database is there (or gone) within a limit.
sub await_worker
{
	my ($node, $database, $there, $limit) = @_;

	return await($node, 'SELECT EXISTS (' . worker_query($database) . ')', expected => $there ? 't' : 'f', limit => $limit // 60);
}

sub advance
{
	my ($node, $by) = @_;

	$node->psql('postgres', "SELECT queue.clock_advance('$by')");
}

# Lease one message and give its receipt back; waits a little for it.
sub take
{
	my ($node, $queue, $database) = @_;

	return $node->safe_psql($database // 'postgres', "SELECT receipt FROM queue.dequeue('$queue', wait => '5 s')");
}

# What is in a queue, as one line in order.
sub values_of
{
	my ($node, $queue, $database) = @_;

	return $node->safe_psql($database // 'postgres', qq{SELECT string_agg(payload::text, ' ' ORDER BY payload) FROM queues."$queue"});
}

sub attempts_of
{
	my ($node, $queue) = @_;

	return $node->safe_psql('postgres',
		"SELECT string_agg(payload::text || ':' || attempt, ' ' ORDER BY payload::text) FROM queue.dequeue('$queue', 1000, wait => '5 s')");
}

# Functions of the database for the queue "line": send() puts messages of one key into it, numbered; drain()
# dequeues and acks until there is nothing, and returns what came.
sub make_send_and_drain
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE FUNCTION send(letter text, first int, last int, bytes int = 400) RETURNS bigint LANGUAGE sql AS
		$$ SELECT count(queue.enqueue('line', jsonb_build_object('n', letter || n, 'pad', repeat('x', bytes)), key => letter))
		   FROM generate_series(first, last) n $$;
		CREATE PROCEDURE drain(INOUT got text[] = '{}') LANGUAGE plpgsql AS
		$$ DECLARE
			m record;
			more boolean;
		BEGIN
			LOOP
				more := false;
				FOR m IN SELECT * FROM queue.dequeue('line', 7) LOOP
					more := true;
					got := got || (m.payload ->> 'n');
					PERFORM queue.ack(m.receipt);
				END LOOP;
				COMMIT;
				EXIT WHEN NOT more;
			END LOOP;
		END $$;
	});
}

# After a SIGKILL to the postmaster its children leave by themselves; until the
# last one has left, a start is refused.
sub restart_until_up
{
	my ($node) = @_;
	my $until = time + 60;

	while (time < $until)
	{
		return 1 if $node->start(fail_ok => 1);
		sleep(0.2);
	}
	BAIL_OUT('the server did not come back');
}

1;
