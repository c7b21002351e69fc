# A relay and its standby: what leaves has reached it, and it goes on where the primary has ended.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $primary = new_node('primary', allows_streaming => 1);
$primary->start;
my $file = PostgreSQL::Test::Utils::tempdir() . '/events.jsonl';

$primary->safe_psql('postgres', qq{
	CREATE EXTENSION queue;
	CREATE EXTENSION queue_file;
	CREATE EXTENSION queue_fake;
	CREATE SERVER events FOREIGN DATA WRAPPER queue_file OPTIONS (path '$file');
	CREATE SERVER fake FOREIGN DATA WRAPPER queue_fake;
	SELECT queue.create('q', '{"ordered": true}');
	SELECT queue.create('other');
	SELECT queue.create_relay('r', 'q', 'events', '{"wait_for_standby": true, "lease": "2 s"}');
	SELECT queue.create_relay('s', 'other', 'fake');
});
$primary->backup('backup');

# Numbers of the lines that are there.
sub numbers
{
	return () unless -e $file;
	return map { decode_json($_)->{data} } split /\n/, slurp_file($file);
}

# without a standby nothing leaves, and others do not wait
$primary->safe_psql('postgres', q{SELECT queue.enqueue('q', to_jsonb(n), key => 'k') FROM generate_series(1, 10) n});
ok(await($primary, "SELECT held > 0 AND in_flight = 0 FROM queue.relays WHERE relay = 'r'"), 'taken, and not sent');
$primary->safe_psql('postgres', q{SELECT queue.enqueue('other', '"fine"')});
ok(await($primary, "SELECT delivered FROM queue.relays WHERE relay = 's'", expected => '1'), 'a relay that does not wait delivers');
is(join(" ", numbers()), "", 'the other has sent nothing');

# with one they do
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
ok(await($primary, "SELECT delivered FROM queue.relays WHERE relay = 'r'", expected => '10'), 'what a standby has is sent');
is($standby->safe_psql('postgres', "SELECT count(*) FROM queue.relays"), '2', 'on the standby relays can be looked at');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'queue relay'"), '0', 'and do not run');
is(sqlstate($standby, "SELECT queue.pause_relay('r')"), '25006', 'nor are they changed');

# the standby is cut off: what it does not have does not leave, and is not there after the failover
$standby->stop;
$primary->safe_psql('postgres', q{SELECT queue.enqueue('q', to_jsonb(n), key => 'k') FROM generate_series(11, 15) n});
ok(await($primary, "SELECT held > 0 AND in_flight = 0 FROM queue.relays WHERE relay = 'r'"), 'taken, and not sent');
my ($epoch) = $primary->safe_psql('postgres', "SELECT epoch FROM queue.relays WHERE relay = 'r'");
$primary->stop('immediate');
is(join(' ', numbers()), join(' ', 1 .. 10), 'no event has left that will not be there');
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$standby->start;
$standby->promote;
ok(await($standby, "SELECT runner IS NOT NULL AND epoch > $epoch FROM queue.relays WHERE relay = 'r'"), 'the promoted one runs the relay, with a higher epoch');
$standby->safe_psql('postgres', "SELECT queue.alter_relay('r', '{\"wait_for_standby\": null}')");
$standby->safe_psql('postgres', q{SELECT queue.enqueue('q', to_jsonb(n), key => 'k') FROM generate_series(21, 25) n});
ok(await($standby, "SELECT count(*) FROM queues.q", expected => '0'), 'and delivers');
my %seen;
is(join(' ', grep { !$seen{$_}++ } numbers()), join(' ', 1 .. 10, 21 .. 25), 'in order');
check_ok($standby);
$standby->stop;
done_testing();
