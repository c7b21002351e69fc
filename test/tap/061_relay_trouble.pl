# What a relay does when its destination, its sink or its database is in trouble.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', conf => 'restart_after_crash = on');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION queue;
	CREATE EXTENSION queue_fake;
	CREATE EXTENSION queue_file;
	CREATE SERVER fake FOREIGN DATA WRAPPER queue_fake;
	CREATE USER MAPPING FOR CURRENT_USER SERVER fake OPTIONS (secret 'Sesame-0815', name 'ali');
	SELECT queue.create('q', '{"backoff": "none", "max_attempts": 3}');
	SELECT queue.create_relay('r', 'q', 'fake', '{"breaker_pause": "20 ms", "breaker_pause_max": "50 ms", "timeout": "1 s"}');
});

sub enqueue
{
	my ($text, %more) = @_;
	my $queue = $more{queue} // 'q';

	$node->safe_psql('postgres', "SELECT queue.enqueue('$queue', '{\"text\": \"$text\"}')");
}

sub is_empty
{
	my ($queue, $name) = @_;

	ok(await($node, "SELECT count(*) FROM queues.$queue", expected => '0'), $name);
}

# A purge leaves out what is just being stored anew.
sub purge_all
{
	ok(await($node, q{SELECT queue.purge('q', '{"states": ["ready", "delayed", "failed", "leased"]}') = 0
		AND (SELECT count(*) FROM queues.q) = 0}), 'purged');
}

# outcomes
enqueue('fine');
is_empty('q', 'delivered');
enqueue('permanent');
is_empty('q', 'a permanent error is no retry');
is($node->safe_psql('postgres', q{SELECT headers->'queue.death'->>'reason', headers->'queue.death'->>'error', headers->'queue.death'->>'attempts' FROM queues.q_dead}),
	'rejected|permanent|1', 'the message is a dead letter, with the answer');
enqueue('retry');
is_empty('q', 'one that fails again and again dies');
is($node->safe_psql('postgres', q{SELECT headers->'queue.death'->>'reason', headers->'queue.death'->>'error', headers->'queue.death'->>'attempts' FROM queues.q_dead ORDER BY id DESC LIMIT 1}),
	'max_attempts|retry|3', 'after as many attempts as the queue has');

# a destination that takes nothing: nothing is counted, the breaker opens, it goes on by itself
enqueue('throttle');
ok(await($node, "SELECT breaker <> 'closed' AND state = 'broken' FROM queue.relays"), 'the breaker opens');
is($node->safe_psql('postgres', q{SELECT status, value FROM queue.health() WHERE "check" = 'relays'}), 'warn|1', 'health() says so');
is($node->safe_psql('postgres', "SELECT max(failures) FROM queues.q"), '0', 'nothing is counted');
is($node->safe_psql('postgres', "SELECT last_error FROM queue.relays"), 'throttle', 'the answer is shown');
purge_all();
enqueue('fine again');
is_empty('q', 'it goes on');
ok(await($node, "SELECT breaker = 'closed' FROM queue.relays"), 'the breaker is closed');

# while it is open failures are not counted either
enqueue("ambiguous $_") foreach 1 .. 2;
$node->safe_psql('postgres', "SELECT queue.alter('q', '{\"max_attempts\": 100}')");
enqueue('retry for long');
ok(await($node, "SELECT breaker <> 'closed' FROM queue.relays"), 'the breaker opens of failures');
my $failures = $node->safe_psql('postgres', "SELECT sum(failures) FROM queues.q");
my $at = $node->safe_psql('postgres', "SELECT last_error_at FROM queue.relays");
ok(await($node, "SELECT last_error_at > '$at'::timestamptz + interval '300 ms' FROM queue.relays"), 'it goes on trying');
is($node->safe_psql('postgres', "SELECT sum(failures) FROM queues.q"), $failures, 'a destination that is down kills nothing');
purge_all();

# one that wants no more
enqueue('disable');
ok(await($node, "SELECT state FROM queue.relays", expected => 'paused'), 'the relay is paused');
is($node->safe_psql('postgres', "SELECT pause_reason FROM queue.relays"), 'disable', 'for that reason');
is($node->safe_psql('postgres', "SELECT count(*), max(failures) FROM queues.q"), '1|0', 'the message is there');
purge_all();
$node->safe_psql('postgres', "SELECT queue.resume_relay('r')");
enqueue('resumed');
is_empty('q', 'resumed it delivers');

# one slow destination is nobody else's trouble, and a hanging one is given up
$node->safe_psql('postgres', q{
	SELECT queue.create('other');
	SELECT queue.create_relay('s', 'other', 'fake');
});
enqueue('hang');
ok(await($node, "SELECT in_flight FROM queue.relays WHERE relay = 'r'", expected => '1'), 'it hangs');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay' AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)}),
	'0', 'no transaction is open meanwhile');
enqueue('fine', queue => 'other');
is_empty('other', 'another relay delivers meanwhile');
purge_all();

# DROP DATABASE beside relays that hang, in its own and in another database
$node->safe_psql('postgres', 'CREATE DATABASE doomed');
$node->safe_psql('doomed', q{
	CREATE EXTENSION queue;
	CREATE EXTENSION queue_fake;
	CREATE SERVER fake FOREIGN DATA WRAPPER queue_fake;
	SELECT queue.create('q');
	SELECT queue.create_relay('r', 'q', 'fake');
	SELECT queue.enqueue('q', '"hang"');
});
enqueue('hang');
ok(await($node, "SELECT in_flight FROM queue.relays", database => 'doomed', expected => '1'), 'one hangs there');
ok(await($node, "SELECT in_flight FROM queue.relays WHERE relay = 'r'", expected => '1'), 'and one here');
my $began = time;
$node->safe_psql('postgres', 'DROP DATABASE doomed');
my $took = time - $began;
cmp_ok($took, '<', 5, "DROP DATABASE returns while sinks hang");
is($node->safe_psql('postgres', "SELECT in_flight FROM queue.relays WHERE relay = 'r'"), '1', 'the relay here was left alone');
purge_all();

# a crash inside the sink restarts the server, and loses nothing
$node->safe_psql('postgres', "SELECT queue.pause_relay('r')");
enqueue("before $_") foreach 1 .. 3;
enqueue('crash');
enqueue("after $_") foreach 1 .. 3;
my $before = $node->safe_psql('postgres', "SELECT count(*) FROM queues.q");
$node->safe_psql('postgres', "SELECT queue.resume_relay('r')");
ok(await($node, "SELECT pg_postmaster_start_time() IS NOT NULL AND (SELECT last_error IS NULL FROM queue.relays WHERE relay = 'r')"), 'the server is up again');
ok(PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /was terminated by signal 11/, 'the sink has crashed');
$node->poll_query_until('postgres', "SELECT queue.pause_relay('r') IS NOT NULL");
ok(await($node, q{SELECT count(*) > 0 FROM queues.q WHERE payload->>'text' = 'crash'}), 'the message is there');
$node->safe_psql('postgres', "SELECT queue.cancel('q', id) FROM queues.q WHERE payload->>'text' = 'crash'");
$node->poll_query_until('postgres', "SELECT queue.resume_relay('r') IS NOT NULL");
is_empty('q', 'without it all others are delivered');
is($before, 7, 'of seven');

# a sink that cannot be opened, a library that may not be loaded any more
$node->safe_psql('postgres', "ALTER SERVER fake OPTIONS (ADD open 'badly')");
ok(await($node, "SELECT last_error FROM queue.relays WHERE relay = 'r'", expected => 'it was told to open badly'), 'why it does not run is shown');
is($node->safe_psql('postgres', "SELECT * FROM queue.relay_test('r')"), 'f|it was told to open badly', 'a trial says it too');
$node->safe_psql('postgres', "ALTER SERVER fake OPTIONS (SET open 'well')");
is($node->safe_psql('postgres', "SELECT * FROM queue.relay_test('r')"), 't|there is nothing to try', 'a trial that goes well');
enqueue('well');
is_empty('q', 'a change of the server is picked up');

# secrets
my ($ret, $stdout, $stderr) = $node->psql('postgres', q{
	SET client_min_messages = debug1;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER fake TO other;
	GRANT SELECT, INSERT, UPDATE, DELETE ON queues.q TO other;
	SET ROLE other;
	SELECT * FROM pg_user_mappings;
	SELECT * FROM queue.relays;
	SELECT * FROM queue.health();
	SELECT * FROM pg_stat_activity;
});
unlike($stdout . $stderr, qr/Sesame/, 'no secret in views');
$node->psql('postgres', q{CREATE USER MAPPING FOR other SERVER fake OPTIONS (secret 'Sesame-4711', wrong 'x')}, stderr => \$stderr);
like($stderr, qr/invalid option "wrong"/, 'a bad option is refused');
unlike($stderr =~ s/^LINE.*//mgr =~ s/^.*CREATE USER.*//mgr, qr/Sesame/, 'without telling a secret');
$node->psql('postgres', q{CREATE SERVER loud FOREIGN DATA WRAPPER queue_fake OPTIONS (secret 'x')}, stderr => \$stderr);
like($stderr, qr/option "secret" belongs in the user mapping/, 'a secret is no option of a server');
my ($dump) = run_command([ 'pg_dump', '-U', 'other', '-d', $node->connstr('postgres'), '--schema-only', '-n', 'public' ]);
unlike($dump, qr/Sesame/, 'no secret in a dump of somebody else');
unlike(join('', grep { !/CREATE USER MAPPING/ } split /^/, slurp_file($node->logfile)), qr/Sesame/, 'no secret in the log');
($ret, $stdout, $stderr) = $node->psql('postgres', q{
	GRANT USAGE ON FOREIGN DATA WRAPPER queue_fake, queue_file TO other;
	SET ROLE other;
	CREATE SERVER strong FOREIGN DATA WRAPPER queue_fake OPTIONS (power 'much');
});
like($stderr, qr/only a superuser may set option "power"/, 'a superuser\'s option is refused to others');
is($node->safe_psql('postgres', q{SET ROLE other; CREATE SERVER strong FOREIGN DATA WRAPPER queue_fake OPTIONS (power 'none'); SELECT 1}), '1', 'but for its default');

# a copy of the database does not relay by itself
$node->safe_psql('postgres', q{SELECT queue.enqueue('q', '"late"', delay => '1 h')});
my $dumped = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dumped, $node->connstr('postgres') ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dumped ], 'restored');
is($node->safe_psql('copy', 'SELECT DISTINCT state FROM queue.relays'), 'foreign', 'the relays of a restored database wait');
like($node->safe_psql('copy', q{SELECT detail FROM queue.health() WHERE "check" = 'relays'}), qr/made in another database/, 'health() says why');
$node->safe_psql('copy', q{SELECT queue.enqueue('q', '"x"')});
is($node->safe_psql('copy', 'SELECT count(*) FROM queues.q'), '2', 'and deliver nothing');
$node->safe_psql('copy', 'SELECT queue.adopt()');
ok(await($node, q{SELECT count(*) FROM queues.q}, database => 'copy', expected => '1'), 'until they are adopted');
is($node->safe_psql('postgres', 'SELECT DISTINCT state FROM queue.relays'), 'running', 'those here go on');

# options that are bad as stored are the trouble of their relay alone, and can be mended
$node->safe_psql('copy', q{
	UPDATE queue._relay SET options = '{"lease": "no time"}' WHERE name = 'r';
	SELECT queue.enqueue('other', '"y"');
});
ok(await($node, q{SELECT last_error LIKE '%lease%' FROM queue.relays WHERE relay = 'r'}, database => 'copy'), 'a relay with bad options says so');
ok(await($node, q{SELECT count(*) FROM queues.other}, database => 'copy', expected => '0'), 'and another one works');
$node->safe_psql('copy', q{SELECT queue.alter_relay('r', '{"lease": null}'), queue.enqueue('q', '"z"')});
ok(await($node, q{SELECT count(*) FROM queues.q}, database => 'copy', expected => '1'), 'mended it goes on');

check_ok($node, 'postgres', 'copy');
$node->stop;
done_testing();
