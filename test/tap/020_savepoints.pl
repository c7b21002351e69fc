# Producers and consumers with two hundred savepoints each, and handlers three blocks deep: what was rolled back
# to a savepoint has not happened, everything else has, once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $node = new_node('main', conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	SELECT queue.create('q', '{"backoff": "none", "max_attempts": 0, "segment_size": "64kB"}');
	SELECT queue.create('deep', '{"backoff": "none", "max_attempts": 0}');
	CREATE TABLE sent (n bigint);
	CREATE TABLE worked (n bigint);
	CREATE SEQUENCE numbers;
});

# Of 200 savepoints a third is rolled back and goes on, a third rolled back and released, a third released; every
# tenth has another one in it. Of each ten transactions one is rolled back as a whole.
sub script
{
	my ($what) = @_;
	my $sql = "BEGIN;\n";

	foreach my $i (1 .. 200)
	{
		my $deep = $i % 10 == 0;

		$sql .= "SAVEPOINT one;\n$what";
		$sql .= "SAVEPOINT two;\n$what" . ($i % 20 == 0 ? "ROLLBACK TO two;\n" : "RELEASE two;\n") if $deep;
		$sql .= ('ROLLBACK TO one', 'ROLLBACK TO one; RELEASE one', 'RELEASE one')[ $i % 3 ] . ";\n";
	}
	return "\\set roll random(1, 10)\n$sql\\if :roll = 1\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n";
}

my %script = (
	produce => script("WITH n AS (SELECT nextval('numbers') AS n), s AS (INSERT INTO sent SELECT n FROM n) SELECT queue.enqueue('q', to_jsonb(n)) FROM n;\n"),
	consume => script("WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q')), w AS (INSERT INTO worked SELECT payload::bigint FROM m) SELECT queue.ack(receipt) FROM m;\n"),
	# without a savepoint, and one that hands back what it took
	steal => "WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 5)), w AS (INSERT INTO worked SELECT payload::bigint FROM m) SELECT count(queue.ack(receipt)) FROM m;\n"
	  . "SELECT count(queue.release(receipt)) FROM queue.dequeue('q', 5);\n");
my $output = '';
my @loads;
foreach my $role (sort keys %script)
{
	append_to_file($node->basedir . "/$role.sql", $script{$role});
	push @loads, IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-t', $role eq 'steal' ? 200 : 15, '-f', $node->basedir . "/$role.sql", '-h', $node->host, '-p', $node->port, 'postgres' ],
		'>', \$output, '2>', \$output);
}
$_->finish foreach @loads;
unlike($output, qr/ERROR|FATAL|aborted/, 'no statement failed');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM sent'), '>', 500, 'messages were sent');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM worked'), '>', 200, 'and worked on');

# What a savepoint took and did not settle stays with its transaction, and with its session after it: it comes
# back at the deadline. Then all are to be had.
my %wrong = (
	'lost' => 'SELECT n FROM sent EXCEPT SELECT n FROM worked EXCEPT SELECT payload::bigint FROM queues.q',
	'worked on and there' => 'SELECT payload::bigint FROM queues.q INTERSECT SELECT n FROM worked',
	'not sent' => '(SELECT payload::bigint FROM queues.q UNION SELECT n FROM worked) EXCEPT SELECT n FROM sent',
	'worked on twice' => 'SELECT n FROM worked GROUP BY n HAVING count(*) > 1');

sub none_wrong
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM ($wrong{$_}) AS wrong"), '0', "$_[0]: none is $_") foreach sort keys %wrong;
	check_ok($node);
}

none_wrong('after the load');
for (1 .. 20)
{
	last if $node->safe_psql('postgres', 'SELECT count(*) FROM queues.q') eq '0';
	advance($node, '31 s');
	$node->safe_psql('postgres', q{
		WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 10000, wait => '1 s')), w AS (INSERT INTO worked SELECT payload::bigint FROM m)
		SELECT count(queue.ack(receipt)) FROM m});
}
none_wrong('at the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sent EXCEPT SELECT count(*) FROM worked'), '', 'each was worked on');
ok(await($node, "SELECT count(*) FROM queue.segments WHERE queue = 'q' AND state = 'sealed'", expected => '0'), 'all segments are emptied');

# Handlers three deep. Work fails where its payload says: the block around it nacks or gives up to the next one.
$node->safe_psql('postgres', q{
	CREATE TABLE deeds (n int, what text);
	CREATE PROCEDURE handle(fail_at int, nack_at int) LANGUAGE plpgsql AS
	$$
	DECLARE
		m queue.message;
	BEGIN
		BEGIN
			BEGIN
				SELECT * INTO m FROM queue.dequeue('deep', wait => '5 s');
				INSERT INTO deeds VALUES (m.payload::int, 'inner');
				IF fail_at = 1 THEN RAISE 'inner'; END IF;
				PERFORM queue.ack(m.receipt);
				IF fail_at = 2 THEN RAISE 'inner, acked'; END IF;
			EXCEPTION WHEN raise_exception THEN
				INSERT INTO deeds VALUES (m.payload::int, 'handler 1');
				PERFORM queue.nack(m.receipt, sqlerrm);
				IF nack_at > 1 THEN RAISE 'handler 1'; END IF;
			END;
		EXCEPTION WHEN raise_exception THEN
			INSERT INTO deeds VALUES (m.payload::int, 'handler 2');
			PERFORM queue.nack(m.receipt, sqlerrm);
			IF nack_at > 2 THEN RAISE 'handler 2'; END IF;
		END;
	EXCEPTION WHEN raise_exception THEN
		INSERT INTO deeds VALUES (m.payload::int, 'handler 3');
		PERFORM queue.nack(m.receipt, sqlerrm);
		IF nack_at > 3 THEN RAISE 'handler 3'; END IF;
	END
	$$;
});
foreach my $fail (0, 1, 2)
{
	foreach my $nack (1 .. ($fail ? 4 : 1))
	{
		my $error = $fail == 0 ? '' : $nack == 4 ? 'transaction was rolled back' : $nack > 1 ? 'handler ' . ($nack - 1) : $fail == 1 ? 'inner' : 'inner, acked';
		my $deeds = $fail == 0 ? 'inner' : $nack == 4 ? '' : "handler $nack";

		$node->safe_psql('postgres', "TRUNCATE deeds; SELECT queue.enqueue('deep', '1')");
		is(sqlstate($node, "CALL handle($fail, $nack)"), $fail && $nack == 4 ? 'P0001' : '00000', "work fails at $fail, handler $nack: the call");
		is($node->safe_psql('postgres', "SELECT string_agg(what, ' ') FROM deeds"), $deeds, 'what was done stays, what was rolled back does not');
		is($node->safe_psql('postgres', "SELECT attempt, last_error, queue.ack(receipt) FROM queue.dequeue('deep', wait => '5 s')"), $fail ? "2|$error|" : '', 'and the message')
		  if $fail;
		is($node->safe_psql('postgres', "SELECT count(*) FROM queues.deep"), '0', 'nothing is left');
	}
}
check_ok($node);
$node->stop;
done_testing();
