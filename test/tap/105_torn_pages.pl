# A crash in the middle of writes: pages of segments, half of them new and half of them old, are put right by recovery,
# with and without checksums.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QueueTest;
use IPC::Run;
use Test::More;

use constant PAGE => 8192;
use constant SECTOR => 512;

# A file's pages, in order; nothing of one that is not there.
sub pages_of
{
	my ($path) = @_;

	return () if !-e $path;
	my $bytes = slurp_file($path);
	return map { substr($bytes, $_ * PAGE, PAGE) } 0 .. length($bytes) / PAGE - 1;
}

# The tables behind the queues with their toast tables and the indexes of those, and the sequence of ids.
sub files
{
	my ($node) = @_;

	return split(/\n/, $node->safe_psql('postgres', q{
		WITH s AS (SELECT c.oid, c.reltoastrelid FROM queue._segment JOIN pg_class c ON c.oid = relation)
		SELECT pg_relation_filepath(oid) FROM s
		UNION ALL SELECT pg_relation_filepath(reltoastrelid) FROM s
		UNION ALL SELECT pg_relation_filepath(indexrelid) FROM s JOIN pg_index ON indrelid = reltoastrelid
		UNION ALL SELECT pg_relation_filepath('queue.message_id')
	}));
}

# Of each page that was written since "old" was read, leave a part as it was: half, or sector by sector. What a file has
# more is of zeros in part. Returns how many pages.
sub tear
{
	my ($data, $old, @files) = @_;
	my $torn = 0;

	foreach my $file (@files)
	{
		my @now = pages_of("$data/$file");
		my @then = @{ $old->{$file} // [] };

		foreach my $n (0 .. $#now)
		{
			my $before = $then[$n] // "\0" x PAGE;
			next if $now[$n] eq $before;

			my $kind = int(rand(3));
			my $mixed = '';
			for (my $at = 0; $at < PAGE; $at += SECTOR)
			{
				my $new = $kind == 0 ? $at < PAGE / 2 : $kind == 1 ? $at >= PAGE / 2 : rand() < 0.5;
				$mixed .= substr($new ? $now[$n] : $before, $at, SECTOR);
			}
			$torn++ if $mixed ne $now[$n];
			$now[$n] = $mixed;
		}
		open(my $out, '+<:raw', "$data/$file") or die "open: $!";
		print $out @now or die "print: $!";
		close($out) or die "close: $!";
	}
	return $torn;
}

# Few buffers, so that most pages have been written when the crash comes; no checkpoint but those that are asked for.
# Segments are emptied at once under load, and not at all while what is there is judged: a snapshot from before would
# miss what the worker moved since.
my $conf = q{
	shared_buffers = '512kB'
	bgwriter_delay = '10ms'
	full_page_writes = on
	checkpoint_timeout = '1h'
	max_wal_size = '4GB'
	autovacuum = off
	queue.worker_interval = '100ms'
};
my $seed = $ENV{QUEUE_SEED} // int(rand(1 << 30));
note("QUEUE_SEED=$seed");
srand($seed);

foreach my $checksums ('without checksums', 'with checksums')
{
	my $on = $checksums eq 'with checksums';
	my @init = $on ? ('-k') : no_checksums();
	my $node = PostgreSQL::Test::Cluster->new($on ? 'with' : 'without');

	$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8', @init ]);
	$node->append_conf('postgresql.conf', "log_statement = none\n$conf");
	$node->start;
	is($node->safe_psql('postgres', 'SHOW data_checksums'), $on ? 'on' : 'off', $checksums);
	$node->safe_psql('postgres', q{
		CREATE EXTENSION queue;
		SELECT queue.create('q', '{"backoff": "none", "max_attempts": 2, "segment_size": "64kB"}');
		CREATE FUNCTION noise(bytes int, seed int) RETURNS text LANGUAGE sql AS
			$$ SELECT substr(string_agg(md5(seed || ':' || n), ''), 1, bytes) FROM generate_series(0, bytes / 32) n $$;
		CREATE TABLE sent (n bigint);
		CREATE TABLE worked (n bigint);
		CREATE SEQUENCE numbers;
	});
	my $dir = $node->basedir;
	append_to_file("$dir/produce.sql", q{
\set roll random(1, 20)
BEGIN;
SELECT nextval('numbers') AS n \gset
INSERT INTO sent VALUES (:n);
SELECT queue.enqueue('q', to_jsonb(:n), headers => jsonb_build_object('fill', noise(CASE WHEN :roll < 4 THEN 20000 ELSE 400 END, :n)));
\if :roll = 20
ROLLBACK;
\else
COMMIT;
\endif
});
	append_to_file("$dir/consume.sql", q{
\set roll random(1, 5)
BEGIN;
\if :roll = 1
SELECT count(queue.nack(receipt, 'broken')) FROM queue.dequeue('q', 2);
\elif :roll = 2
SELECT count(*) FROM queue.dequeue('q', 2);
ROLLBACK;
BEGIN;
\else
WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('q', 3)),
w AS (INSERT INTO worked SELECT payload::bigint FROM m)
SELECT count(queue.ack(receipt)) FROM m WHERE id IS NOT NULL;
\endif
COMMIT;
});

	for my $round (1 .. 2)
	{
		my $name = "$checksums, round $round";
		reclaim_after($node, 0);
		$node->reload;
		my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM worked');
		my %old;
		my @loads;
		my $output = '';

		# what is on the pages before, to be acked after
		$node->safe_psql('postgres', q{
			WITH n AS (INSERT INTO sent SELECT nextval('numbers') FROM generate_series(1, 400) RETURNING n)
			SELECT count(queue.enqueue('q', to_jsonb(n), headers => jsonb_build_object('fill', noise(400, n::int)))) FROM n});
		$node->safe_psql('postgres', 'CHECKPOINT');
		$old{$_} = [ pages_of($node->data_dir . "/$_") ] foreach files($node);
		push @loads, IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '120', '-f', "$dir/$_.sql", '-h', $node->host, '-p', $node->port, 'postgres' ],
			'>', \$output, '2>', \$output) foreach qw(produce consume);
		ok(await($node, "SELECT (SELECT count(*) FROM worked) > $before + 600"), "$name: work is done");
		my @files = files($node);
		$node->stop('immediate');
		$_->finish foreach @loads;
		my $torn = tear($node->data_dir, \%old, @files);
		cmp_ok($torn, '>', 20, "$name: $torn pages are torn");
		reclaim_after($node, '1d');
		$node->start;

		is($node->safe_psql('postgres', q{
			SELECT count(*) FROM ((SELECT n FROM sent EXCEPT SELECT n FROM worked)
				EXCEPT (SELECT payload::bigint FROM queues.q UNION ALL SELECT payload::bigint FROM queues.q_dead)) AS lost}), '0', "$name: nothing is lost");
		is($node->safe_psql('postgres', q{
			SELECT count(*) FROM (SELECT payload::bigint FROM queues.q UNION ALL SELECT payload::bigint FROM queues.q_dead
				EXCEPT (SELECT n FROM sent EXCEPT SELECT n FROM worked)) AS ghost}), '0', "$name: nothing is back");
		is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT n) FROM worked'), '0', "$name: nothing was worked on twice");
		is($node->safe_psql('postgres', q{
			SELECT count(*) FROM (SELECT * FROM queues.q UNION ALL SELECT * FROM queues.q_dead) m
			WHERE length(headers->>'fill') NOT IN (400, 20000) OR headers->>'fill' <> noise(length(headers->>'fill'), payload::int)}), '0', "$name: each is whole");
		is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT payload) FROM (SELECT payload FROM queues.q UNION ALL SELECT payload FROM queues.q_dead) m'),
			'0', "$name: each is there once");
		check_ok($node);
		if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"))
		{
			$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS amcheck');
			is($node->safe_psql('postgres', q{SELECT count(*) FROM queue._segment, verify_heapam(relation, check_toast => true)}), '0', "$name: amcheck finds nothing");
		}
	}
	my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM queues.q');
	ok(await($node, "SELECT count(queue.ack(receipt)) > -1 AND (SELECT count(*) FROM queues.q) = 0 FROM queue.dequeue('q', 10000)"), "$checksums: all $left are delivered");
	check_ok($node);
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|invalid page|page verification failed/, "$checksums: nothing crashed");
	$node->stop;
	if ($on)
	{
		command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'all checksums are right');
	}
	$node->clean_node;
}
done_testing();

sub reclaim_after
{
	my ($node, $delay) = @_;

	$node->append_conf('postgresql.conf', "queue.reclaim_delay = $delay");
}

# From 18 on checksums are the default.
sub no_checksums
{
	return `initdb --help` =~ /--no-data-checksums/ ? ('--no-data-checksums') : ();
}
