# The disk is full: each way to write ends in a clean error, nothing is lost, what needs no room works, and the
# worker neither stops nor floods the log. Once there is room again, all goes on.

use strict;
use warnings;

use FindBin;

# A file system of a few megabytes takes a mount, and that takes a user namespace of our own: there we are root and
# may mount, and in one more below it we are somebody else again, since initdb refuses root.
BEGIN
{
	if (!$ENV{QUEUE_SMALL_DISK})
	{
		require File::Temp;
		my $folder = File::Temp::tempdir('small.XXXXXX', TMPDIR => 1);

		chmod 0755, $folder;
		my @inside = ('unshare', '-Urm', 'sh', '-c',
			'mount -t tmpfs -o size=40m,mode=700 none "$0" && exec unshare -U --map-user=1000 --map-group=1000 -- "$@"', $folder);
		my $able = system(join(' ', map { "'$_'" } @inside, 'true') . ' >/dev/null 2>&1') == 0;

		if (!$able)
		{
			rmdir $folder;
			print "1..0 # SKIP no user namespaces here, so no file system of our own\n";
			exit 0;
		}
		$ENV{QUEUE_SMALL_DISK} = $folder;
		exec { $inside[0] } @inside, $^X, (map { ('-I', $_) } @INC), "$FindBin::RealBin/$FindBin::RealScript"
		  or die "exec: $!";
	}
}

use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use Test::More;

my $disk = $ENV{QUEUE_SMALL_DISK};
my $node = new_node('main', conf => "queue.worker_interval = '100ms'\nqueue.reclaim_delay = 0\nautovacuum = off\nlog_min_messages = warning");

# Its catalog and the WAL are elsewhere: those who fill the disk of the WAL get a PANIC from PostgreSQL.
mkdir "$disk/space" or die "mkdir: $!";
$node->start;
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disk/space'");
$node->safe_psql('postgres', 'CREATE DATABASE small TABLESPACE small');
$node->safe_psql('small', q{
	CREATE EXTENSION queue;
	CREATE FUNCTION noise(bytes int, seed int) RETURNS text LANGUAGE sql AS
		$$ SELECT substr(string_agg(md5(seed || ':' || n), ''), 1, bytes) FROM generate_series(0, bytes / 32) n $$;
	SELECT queue.create('q', '{"segment_size": "64kB", "max_attempts": 1}'), queue.create('other', '{"max_attempts": 1}');
	SELECT queue.enqueue('q', to_jsonb(noise(100000, n))) FROM generate_series(1, 10) n;
	SELECT queue.enqueue('q', to_jsonb(noise(1000, n))) FROM generate_series(11, 20) n;
	SELECT count(queue.enqueue('other', to_jsonb(n))) FROM generate_series(1, 41) n;
	SELECT queue.reject(receipt) FROM queue.dequeue('other');
	CREATE TABLE worked (n int);
	INSERT INTO worked VALUES (0);
});
$node->safe_psql('small', 'CHECKPOINT');
my $digest = "SELECT count(*) || ' ' || md5(string_agg(md5(payload::text), '' ORDER BY id)) FROM (SELECT * FROM queues.q UNION ALL SELECT * FROM queues.q_dead) m";
my $kept = $node->safe_psql('small', $digest);

# Take all that is left of the disk, but for so many bytes.
sub fill
{
	my ($left) = @_;
	my $block = "\1" x 65536;
	my $size;

	open(my $file, '>', "$disk/filler") or die "open: $!";
	while (defined(my $written = syswrite($file, $block, length($block))))
	{
		$size += $written;
	}
	truncate($file, $size - $left) if $left;
	close($file);
}

sub free_disk
{
	unlink "$disk/filler" or die "unlink: $!";
}

sub errors_of_worker
{
	my @lines = grep { /\] ERROR:  .*(No space left|could not extend)/ } split(/\n/, slurp_file($node->logfile));

	# what clients provoked has the name of their program
	return scalar(grep { !/\] \S+ (ERROR|psql)/ } @lines);
}

my @receipts = split(/\n/, $node->safe_psql('small', "SELECT receipt FROM queue.dequeue('q', 3, '1 h')"));
fill(0);

# every way in
my %in = (
	'enqueue, many' => q{SELECT count(queue.enqueue('q', to_jsonb(noise(1000, n)))) FROM generate_series(1, 2000) n},
	'enqueue, out of line' => q{SELECT queue.enqueue('q', to_jsonb(noise(1000000, 1)))},
	'enqueue_bytes' => q{SELECT queue.enqueue_bytes('q', decode(noise(400000, 1), 'hex'))},
	'enqueue_unique' => q{SELECT queue.enqueue_unique('q', to_jsonb(noise(400000, 1)))},
	'a batch' => q{SELECT queue.enqueue_batch('q', (SELECT array_agg(to_jsonb(noise(1000, n))) FROM generate_series(1, 2000) n))},
	'a batch, out of line' => q{SELECT queue.enqueue_bytes_batch('q', (SELECT array_agg(decode(noise(10000, n), 'hex')) FROM generate_series(1, 100) n))},
	'INSERT' => q{INSERT INTO queues.q (payload) SELECT to_jsonb(noise(1000, n)) FROM generate_series(1, 2000) n},
	'COPY' => q{COPY queues.q (payload) FROM PROGRAM 'yes "\"$(head -c 1000 /dev/zero | tr "\0" x)\"" | head -n 20000'});
foreach my $way (sort keys %in)
{
	fails($node, $in{$way}, '53100', "$way: no space", 'small');
}
is($node->safe_psql('small', $digest), $kept, 'nothing came in, nothing is gone');
fails($node, "SELECT queue.create('more')", '53100', 'create: no space', 'small');
is($node->safe_psql('small', "SELECT count(*) FROM queue.queues WHERE queue LIKE 'more%'"), '0', 'and nothing is left of it');

# nack and reject store a copy; the lease is what it was
fails($node, "SELECT queue.nack('$receipts[0]', 'no')", '53100', 'nack: no space', 'small');
fails($node, "SELECT queue.reject('$receipts[0]', 'no')", '53100', 'reject: no space', 'small');
fails($node, "SELECT queue.nack_batch(ARRAY['$receipts[0]', '$receipts[1]']::uuid[])", '53100', 'nack_batch: no space', 'small');
is($node->safe_psql('small', "SELECT string_agg(status, ' ') FROM queue.extend_batch('{" . join(',', @receipts) . "}')"),
	'extended extended extended', 'the leases are held');

# what needs no room
is($node->safe_psql('small', "SELECT count(queue.release(r)) FROM unnest('{$receipts[1], $receipts[2]}'::uuid[]) r"), '2', 'release');
is($node->safe_psql('small', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('other', 10)"), '10', 'dequeue and ack');
is($node->safe_psql('small', "SELECT count(*) FROM queue.pop('other', 5)"), '5', 'pop');
is($node->safe_psql('small', "SELECT queue.cancel('other', (SELECT min(id) FROM queues.other))"), 't', 'cancel');
is($node->safe_psql('small', "SELECT queue.pause('q'), queue.resume('q')"), '|', 'pause and resume');

# dead letters that the worker cannot write: 2 large ones, whose transaction was rolled back
$node->safe_psql('small', "BEGIN; SELECT count(*) FROM queue.dequeue('q', 2); ROLLBACK");
ok(await($node, "SELECT count(*) FROM queue.leases WHERE queue = 'q' AND state = 'dead'", expected => '2', database => 'small'), 'they wait');
my $until = time + 30;
select(undef, undef, undef, 0.05) while errors_of_worker() == 0 && time < $until;
cmp_ok(errors_of_worker(), '>=', 1, 'the worker says so in the log');

# Meanwhile it works for others: a page of their dead letters has room. What failed is tried again after a second, its
# slot after ten; each time is a line.
my $began = time;
my $lines = errors_of_worker();
foreach my $n (2 .. 16)
{
	$node->safe_psql('small', "BEGIN; SELECT count(*) FROM queue.dequeue('other'); ROLLBACK");
	await($node, "SELECT count(*) FROM queues.other_dead", expected => $n, database => 'small', limit => 20)
	  or BAIL_OUT("the worker does not write for others, round $n");
}
is($node->safe_psql('small', 'SELECT count(*) FROM queues.other_dead'), '16', 'the worker writes for others');
cmp_ok(errors_of_worker() - $lines, '<=', time - $began + 3, 'the log is not flooded');
$node->safe_psql('small', "SELECT queue.clock_advance('11 s')");
$node->safe_psql('small', "BEGIN; SELECT count(*) FROM queue.dequeue('other'); ROLLBACK");
ok(await($node, "SELECT count(*) FROM queues.other_dead", expected => '17', database => 'small', limit => 20), 'nor does it stop later');
cmp_ok(errors_of_worker() - $lines, '<=', time - $began + 14, 'and the log is not flooded');
is($node->safe_psql('small', $digest), $kept, 'nothing is gone');
check_ok($node, 'small');

# and consumers go on
is($node->safe_psql('small', "SELECT queue.ack('$receipts[0]') IS NOT NULL"), 't', 'what could not be nacked can be acked');
$node->safe_psql('small', "INSERT INTO worked SELECT 1 FROM queue.dequeue('q', 100) m, queue.ack(m.receipt)");
is($node->safe_psql('small', "SELECT sum(n) FROM worked"), '17', 'the rest is consumed');
free_disk();
$node->safe_psql('small', "SELECT queue.clock_advance('11 s')");
ok(await($node, 'SELECT count(*) FROM queues.q_dead', expected => '2', database => 'small'), 'with room again, the worker writes the dead letters');
ok(await($node, 'SELECT count(*) FROM queue.leases', expected => '0', database => 'small'), 'nothing is held any more');

# Room without anybody's help: fill it up by enqueueing, and consume. What is emptied is cut, and takes new ones.
is(sqlstate($node, q{SELECT queue.create('more', '{"segment_size": "64kB"}')}, 'small'), '00000', 'create works again');
fill(1500000);
my $stored = 0;
my $state;
while ($stored < 1000)
{
	$state = sqlstate($node, "SELECT queue.enqueue('more', to_jsonb(noise(7000, $stored)))", 'small');
	last if $state ne '00000';
	$stored++;
}
is($state, '53100', "$stored messages went in, the next had no space");
is($node->safe_psql('small', "SELECT count(*) FROM queues.more"), $stored, 'those are there');
cmp_ok($node->safe_psql('small', "SELECT count(*) FROM queue.segments WHERE queue = 'more' AND state = 'sealed'"), '>', 0, 'in several segments');
# There is no room for the table of take_all().
my ($acked, $batch) = (0);
do
{
	$batch = $node->safe_psql('small', "SELECT count(queue.ack(receipt)) FROM queue.dequeue('more', 1000)");
	$acked += $batch;
} while ($batch > 0);
is($acked, $stored, 'and are consumed');
ok(await($node, "SELECT count(queue.enqueue('more', to_jsonb(noise(7000, n)))) = 6 FROM generate_series(1, 6) n", database => 'small', limit => 30),
	'then there is room for new ones, though nothing else was removed');
free_disk();
foreach my $way (sort keys %in)
{
	my $batch = $in{$way} =~ s/\b2000\b/20/r =~ s/head -n 20000/head -n 20/r;

	is(sqlstate($node, $batch, 'small'), '00000', "$way: works again");
}
check_ok($node, 'small');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
