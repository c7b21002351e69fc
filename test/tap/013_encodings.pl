# Databases that are not UTF8: names, keys and errors in their encoding, cut at characters.

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
foreach my $encoding ('LATIN1', 'EUC_JP', 'SQL_ASCII')
{
	my $db = lc $encoding;
	# the same letters for each: psql converts, but for SQL_ASCII, which knows no letters
	my $name = $encoding eq 'EUC_JP' ? "\xe6\xb3\xa8\xe6\x96\x87" : "K\xc3\xa4ufe";
	my %utf8 = $encoding eq 'SQL_ASCII' ? () : (extra_params => [ '-v', 'ON_ERROR_STOP=1' ]);

	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	my $run = sub {
		my ($sql) = @_;
		$sql = "SET client_encoding = 'UTF8'; $sql" if $encoding ne 'SQL_ASCII';
		return $node->safe_psql($db, $sql, %utf8);
	};
	$run->("CREATE EXTENSION queue; SELECT queue.create('$name')");
	is($run->("SELECT queue.enqueue('$name', '{\"n\": 1}', key => '$name', headers => '{\"h\": \"$name\"}') > 0"), 't', "$encoding: a name");
	is($run->("SELECT key = '$name', queue = '$name', headers->>'h' = '$name' FROM queue.pop('$name')"), 't|t|t', "$encoding: it comes back as it went");
	my $as = sub { my ($consumer) = @_; return "queue.dequeue('$name', options => jsonb_build_object('consumer', $consumer))" };
	my $longest = "repeat('$name', 10) || repeat('x', 63 - octet_length(repeat('$name', 10)))";
	my (undef, undef, $error) = $node->psql($db, "\\set VERBOSITY sqlstate\nSET client_encoding = '" . ($encoding eq 'SQL_ASCII' ? $encoding : 'UTF8') . "'; SELECT receipt FROM " . $as->("repeat('x', 62) || '$name'"));
	like($error, qr/22023/, "$encoding: a consumer's name over 63 bytes is refused, not cut within a letter");
	$run->("SELECT queue.enqueue('$name', '2')");
	is($run->("SELECT count(*) FROM " . $as->($longest) . "; SELECT consumer = $longest FROM queue.leases; SELECT queue.purge('$name', '{\"states\": [\"leased\"]}')"), "1\nt\n1", "$encoding: one of 63 bytes is shown whole");
	$run->("SELECT queue.enqueue('$name', '2', options => '{\"max_attempts\": 1}')");
	is($run->("SELECT queue.nack(receipt, repeat('$name', 5000)) FROM queue.dequeue('$name')"), 'dead', "$encoding: a long error");
	is( $run->("SELECT octet_length(last_error) BETWEEN 8189 AND 8192, repeat('$name', 5000) LIKE last_error || '%', headers->'queue.death'->>'queue' = '$name' FROM queue.pop('${name}_dead')"),
		't|t|t', "$encoding: is cut between characters");
	is($run->("INSERT INTO queues.\"$name\" (body) VALUES ('\\x00ff'); SELECT encode(body, 'hex') FROM queue.pop('$name')"), '00ff', "$encoding: bytes are bytes");
	check_ok($node, $db);
}
$node->stop;
done_testing();
