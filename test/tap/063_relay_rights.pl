# Relays in a database whose owner is no superuser: he can do what he may, and no more.

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
$node->safe_psql('postgres', q{
	CREATE ROLE landlord LOGIN;
	CREATE ROLE tenant LOGIN;
	CREATE DATABASE house OWNER landlord;
});

sub as
{
	my ($role, $query) = @_;
	my ($status, $stdout, $stderr) = $node->psql('house', $query, extra_params => [ '-U', $role ]);

	return $status == 0 ? "$stdout" : "failed: $stderr";
}

as('landlord', 'CREATE EXTENSION queue');
$node->safe_psql('house', q{
	CREATE EXTENSION queue_fake;
	GRANT USAGE ON FOREIGN DATA WRAPPER queue_fake TO landlord, tenant;
	SELECT queue.create('secret');
	SELECT queue.enqueue('secret', '"of a superuser"');
});

# he can make, change, pause and drop his own
is(as('landlord', q{
	CREATE SERVER his FOREIGN DATA WRAPPER queue_fake;
	SELECT queue.create('q', '{"backoff": "none"}') IS NULL;
	SELECT queue.create_relay('r', 'q', 'his') IS NULL;
	SELECT queue.enqueue('q', '"fine"') IS NULL}), "f\nf\nf", 'made');
ok(await($node, 'SELECT delivered FROM queue.relays', database => 'house', expected => '1'), 'it delivers');
is(as('landlord', q{
	SELECT queue.alter_relay('r', '{"log": true}') IS NULL;
	SELECT queue.pause_relay('r') IS NULL;
	SELECT state FROM queue.relays;
	SELECT queue.resume_relay('r') IS NULL}), "f\nf\npaused\nf", 'altered, paused and resumed');
as('landlord', q{SELECT queue.enqueue('q', '"logged"')});
ok(await($node, 'SELECT count(*) FROM queue.relay_log', database => 'house', expected => '1'), 'and logged');
as('landlord', q{SELECT queue.enqueue('q', '"disable"')});
ok(await($node, 'SELECT state, pause_reason FROM queue.relays', database => 'house', expected => 'paused|disable'), 'a destination can pause it');
is(as('landlord', q{SELECT queue.purge('q'); SELECT queue.drop_relay('r') IS NULL}), "1\nf", 'and dropped');

# a row that he writes himself is nobody's, before it is adopted by who may
my $identifier = $node->safe_psql('house', 'SELECT (pg_control_system()).system_identifier');
is(as('landlord', qq{
	INSERT INTO queue._relay SELECT 77, 'forged', 'queues.secret', 'his', 'postgres', '{}', false, NULL, $identifier, oid, now()
	FROM pg_database WHERE datname = current_database()}), '', 'he can write a row, as a restore does');
is($node->safe_psql('house', 'SELECT state FROM queue.relays'), 'foreign', 'it is of another database');
like(as('landlord', 'SELECT queue.adopt()'), qr/^$|failed/, 'he adopts');
is($node->safe_psql('house', 'SELECT state FROM queue.relays'), 'foreign', 'but not what works with the rights of others');
is($node->safe_psql('house', 'SELECT count(*) FROM queues.secret'), '1', 'nothing of theirs has left');
like(as('landlord', q{SET session_replication_role = replica}), qr/permission denied/, 'nor can he go round the trigger');
like(as('landlord', q{UPDATE queue._relay SET system_identifier = 1}), qr/permission denied/, 'nor change a row');
$node->safe_psql('house', "SELECT queue.drop_relay('forged')");

# what others may not see is not given to queue-relay
$node->safe_psql('house', q{
	CREATE SERVER shared FOREIGN DATA WRAPPER queue_fake;
	CREATE USER MAPPING FOR PUBLIC SERVER shared OPTIONS (secret 'Sesame');
	GRANT USAGE ON FOREIGN SERVER shared TO tenant;
	GRANT CREATE ON SCHEMA queues TO tenant;
});
is(as('tenant', q{
	SELECT queue.create('t') IS NULL;
	SELECT queue.create_relay('t', 't', 'shared', '{"runner": "program"}') IS NULL}), "f\nf", 'a relay to a server of somebody else');
like(as('tenant', "SELECT queue._relay_begin('t', 'thief')"), qr/needs a user mapping of its owner/, 'the secrets of PUBLIC stay where they are');
$node->safe_psql('house', "CREATE USER MAPPING FOR tenant SERVER shared OPTIONS (secret 'mine')");
like(as('tenant', "SELECT settings FROM queue._relay_begin('t', 'tenant')"), qr/mine/, 'his own are given to him');
is(as('tenant', "SELECT runner FROM queue._relay_status((SELECT max(id) FROM generate_series(1, 100) id))"), '', 'nothing is shown of what is not there');
is($node->safe_psql('house', q{SET ROLE landlord; SELECT count(runner) FROM generate_series(1, 100) n, queue._relay_status(n)}), '0', 'nor of what is not his');

# what a pause finds on its way goes back, and counts nothing
$node->safe_psql('house', q{
	SELECT queue.alter('secret', '{"max_attempts": 1}');
	SELECT queue.create_relay('slow', 'secret', 'shared');
	SELECT queue.enqueue('secret', '"hang"');
});
ok(await($node, "SELECT in_flight FROM queue.relays WHERE relay = 'slow'", database => 'house', expected => '1'), 'one hangs');
$node->safe_psql('house', "SELECT queue.pause_relay('slow')");
ok(await($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay'", database => 'house', expected => '0'), 'the worker ends');
ok(await($node, "SELECT state, failures FROM queues.secret", database => 'house', expected => 'ready|0'), 'what it held is ready, and has not failed');
check_ok($node, 'house');
$node->stop;
done_testing();
