# The sinks for HTTP and PostgreSQL in relay workers: what they deliver, whom they do not, and that
# one whose destination says nothing keeps nobody waiting.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION queue');
foreach my $sink ('queue_http', 'queue_postgres')
{
	my ($status, $stdout, $stderr) = $node->psql('postgres', "CREATE EXTENSION $sink");
	plan skip_all => "$sink is not built" if $stderr =~ /is not available/;
}
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA queues TO app;
	GRANT USAGE ON FOREIGN DATA WRAPPER queue_http, queue_postgres TO app;
});

# It accepts connections and says nothing.
my $silent = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "no socket: $!";
my $port = $silent->sockport;

sub relay_of
{
	my ($database, $wrapper, $options, $mapping) = @_;

	$node->safe_psql($database, qq{
		CREATE EXTENSION IF NOT EXISTS queue;
		CREATE EXTENSION IF NOT EXISTS $wrapper;
		CREATE SERVER there FOREIGN DATA WRAPPER $wrapper OPTIONS ($options);
		} . ($mapping ? "CREATE USER MAPPING FOR CURRENT_USER SERVER there OPTIONS ($mapping);" : '') . q{
		SELECT queue.create('q');
		SELECT queue.create_relay('r', 'q', 'there');
		SELECT queue.enqueue('q', '{"n": 1}');
	});
}

# DROP DATABASE, beside destinations that say nothing
foreach my $case (
	[ 'queue_http', "url 'http://127.0.0.1:$port/', allow_private 'true'", '' ],
	[ 'queue_http', "url 'https://127.0.0.1:$port/', allow_private 'true'", '' ],
	[ 'queue_postgres', "host '127.0.0.1', port '$port', dbname 'x', queue 'x'", "user 'x', password 'x'" ])
{
	my ($wrapper, $options, $mapping) = @$case;

	$node->safe_psql('postgres', 'CREATE DATABASE doomed');
	relay_of('doomed', $wrapper, $options, $mapping);
	ok(await($node, "SELECT held FROM queue.relays", database => 'doomed', expected => '1'), "$wrapper: a message is on its way");
	$node->safe_psql('postgres', 'CREATE DATABASE bystander');
	$node->safe_psql('doomed', "SELECT queue.pause_relay('r')");
	ok(await($node, "SELECT state, failures FROM queues.q", database => 'doomed', expected => 'ready|0'), 'paused, it is back and has not failed');
	$node->safe_psql('doomed', "SELECT queue.resume_relay('r')");
	ok(await($node, "SELECT held FROM queue.relays", database => 'doomed', expected => '1'), 'on its way again');
	my $began = time;
	$node->safe_psql('postgres', 'DROP DATABASE bystander');
	cmp_ok(time - $began, '<', 5, 'another database can be dropped');
	$began = time;
	$node->safe_psql('postgres', 'DROP DATABASE doomed');
	cmp_ok(time - $began, '<', 5, 'and its own');
}

# to another database: once, and in order
$node->safe_psql('postgres', 'CREATE DATABASE remote');
$node->safe_psql('remote', q{CREATE EXTENSION queue; SELECT queue.create('in', '{"ordered": true}')});
my $socket = $node->host;
my $server_port = $node->port;
$node->safe_psql('postgres', qq{
	CREATE SERVER remote FOREIGN DATA WRAPPER queue_postgres OPTIONS (host '$socket', port '$server_port', dbname 'remote', queue 'in');
	CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user '} . getpwuid($<) . qq{');
	SELECT queue.create('out', '{"ordered": true}');
	SELECT queue.create_relay('remote', 'out', 'remote');
	INSERT INTO queues.out (key, payload, headers) SELECT 'k' || n % 3, jsonb_build_object('n', n), '{"colour": "red"}' FROM generate_series(1, 3000) n;
});
is($node->safe_psql('postgres', "SELECT ok FROM queue.relay_test('remote')"), 't', 'the other database can be reached');
ok(await($node, 'SELECT count(*) FROM queues.in', database => 'remote', expected => '3000'), 'all are there');
is($node->safe_psql('remote', q{SELECT count(DISTINCT payload), bool_and(headers->>'colour' = 'red'), bool_and(ok) FROM (
	SELECT payload, headers, (payload->>'n')::int > lag((payload->>'n')::int, 1, 0) OVER (PARTITION BY key ORDER BY id) AS ok FROM queues.in) x}),
	'3000|t|t', 'once each, in the order of keys, with their headers');
ok(await($node, 'SELECT count(*) FROM queues.out', expected => '0'), 'and acked here');

# whom a relay must not reach
my ($ret, $stdout, $stderr) = $node->psql('postgres', qq{
	SET ROLE app;
	CREATE SERVER mine FOREIGN DATA WRAPPER queue_http OPTIONS (url 'http://127.0.0.1:$port/', allow_private 'true')});
like($stderr, qr/only a superuser may set option "allow_private"/, 'private addresses are a superuser\'s');
$node->safe_psql('postgres', qq{
	SET ROLE app;
	SELECT queue.create('mine');
	CREATE SERVER mine FOREIGN DATA WRAPPER queue_http OPTIONS (url 'http://localhost:$port/');
	SELECT queue.create_relay('mine', 'mine', 'mine');
	SELECT queue.enqueue('mine', '"secret"');
});
ok(await($node, "SELECT state FROM queue.relays WHERE relay = 'mine'", expected => 'paused'), 'without them localhost is refused, and the relay pauses');
like($node->safe_psql('postgres', "SELECT pause_reason FROM queue.relays WHERE relay = 'mine'"), qr/address/, 'it says why');
is($node->safe_psql('postgres', 'SELECT count(*) FROM queues.mine'), '1', 'the message is there');
like($node->safe_psql('postgres', q{SELECT detail FROM queue.health() WHERE "check" = 'relays'}), qr/paused by its destination/, 'health() says so');
($ret, $stdout, $stderr) = $node->psql('postgres', q{
	SET ROLE app;
	CREATE SERVER file FOREIGN DATA WRAPPER queue_http OPTIONS (url 'https://example.com/', ca_file '/etc/passwd')});
like($stderr, qr/needs the role pg_read_server_files/, 'a file of the server needs its role');
($ret, $stdout, $stderr) = $node->psql('postgres', q{SET ROLE app; CREATE SERVER odd FOREIGN DATA WRAPPER queue_http OPTIONS (url 'file:///etc/passwd')});
like($stderr, qr/invalid option of sink "http"/, 'no other scheme');
$node->safe_psql('postgres', qq{
	SET ROLE app;
	SELECT queue.create('socket');
	CREATE SERVER socket FOREIGN DATA WRAPPER queue_postgres OPTIONS (host '$socket', port '$server_port', dbname 'postgres', queue 'out');
	CREATE USER MAPPING FOR CURRENT_USER SERVER socket OPTIONS (user 'postgres', password 'x');
	SELECT queue.create_relay('socket', 'socket', 'socket');
	SELECT queue.enqueue('socket', '1');
});
ok(await($node, "SELECT last_error IS NOT NULL FROM queue.relays WHERE relay = 'socket'"), 'a local socket of the server is refused');
is($node->safe_psql('postgres', "SELECT count(*) FROM queues.socket"), '1', 'nothing left by it');
($ret, $stdout, $stderr) = $node->psql('postgres', qq{
	SET ROLE app;
	CREATE SERVER trusting FOREIGN DATA WRAPPER queue_postgres OPTIONS (host '127.0.0.1', port '$server_port', dbname 'postgres', queue 'out');
	CREATE USER MAPPING FOR CURRENT_USER SERVER trusting OPTIONS (user 'postgres');
	SELECT queue.create('trusting');
	SELECT queue.create_relay('trusting', 'trusting', 'trusting');
	SELECT queue.enqueue('trusting', '1');
});
ok(await($node, "SELECT last_error ~ 'password' FROM queue.relays WHERE relay = 'trusting'"), 'without a password a relay of others does not connect');
check_ok($node);
$node->stop('fast');
done_testing();
