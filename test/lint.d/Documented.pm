# Documented.pm
#	  What the sources define and what the pages say, for the rules about
#	  documentation.
package Documented;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(slurp sources sql_parts pages table fault faults
  functions views types tables queue_options call_options settings);

my $faults = 0;

sub fault { print "@_\n"; $faults++; }
sub faults { return $faults ? 1 : 0; }

sub slurp
{
	my $path = shift;
	open(my $file, '<', $path) or return '';
	local $/;
	return scalar <$file>;
}

sub sources { return sort glob('src/*.c src/*.h'); }
sub sql_parts { return sort glob('sql/extension/*.sql'); }
sub pages { return grep { -e } 'README.md', sort glob('doc/*.md'); }

# The functions and views that users see; those that begin with an underscore are parts of views.
sub functions
{
	my %found;
	for (map { slurp($_) } sql_parts())
	{
		$found{$1} = 1 while /^CREATE (?:FUNCTION|PROCEDURE) queue\.([a-z][a-z0-9_]*)/mg;
	}
	return %found;
}

sub created
{
	my $kind = shift;
	my %found;
	for (map { slurp($_) } sql_parts())
	{
		$found{$1} = 1 while /^CREATE $kind queue\.([a-z_][a-z0-9_]*)/mg;
	}
	return %found;
}

sub views
{
	my %found = created('VIEW');
	delete @found{ grep { /^_/ } keys %found };
	return %found;
}

sub types { return created('TYPE'); }
sub tables { return (created('TABLE'), created('SEQUENCE')); }

# name => [type, default], from the table in options.c.
sub queue_options
{
	my %found;
	my $text = slurp('src/options.c');
	my @types = ($text =~ /type_names\[\] = \{\s*(.*?)\}/s)[0] =~ /"([^"]*)"/g;
	my ($kinds) = $text =~ /typedef enum OptionType\s*\{(.*?)\}/s;
	my $n = 0;
	my %type = map { $_ => $types[ $n++ ] } $kinds =~ /OPTION_([A-Z_]+)/g;
	while ($text =~ /^\t\{"([a-z_]+)", OPTION_([A-Z_]+), (LATER|AT\(\w+\), (?:true|false), [^,]+, [^,]+), (NULL|"[^"]*"),/mg)
	{
		my ($name, $kind, $place, $default) = ($1, $2, $3, $4);
		$default = $default eq 'NULL' ? '' : substr($default, 1, -1);
		$found{$name} = [ $type{$kind}, $default, $place eq 'LATER' ? 0 : 1 ];
	}
	return %found;
}

# Keys of the options argument of calls.
sub call_options
{
	my %found;
	for my $path (sources())
	{
		my $text = slurp($path);
		while ($text =~ /QueueJsonKey (\w+)\[\] = \{(.*?)\n?\};/sg)
		{
			my ($array, $keys) = ($1, $2);
			$found{$1} = $path while $keys =~ /\{"([a-z_]+)",/g;
		}
	}
	return %found;
}

# name => [default, context]
sub settings
{
	my %found;
	my $text = slurp('src/guc.c');
	my %word = (PGC_POSTMASTER => 'restart', PGC_SIGHUP => 'reload', PGC_SUSET => 'superuser', PGC_USERSET => 'user');
	while ($text =~ /DefineCustom\w+Variable\("(queue\.[a-z_]+)",(.*?)\);/sg)
	{
		my ($name, $rest) = ($1, $2);
		my ($context) = $rest =~ /\b(PGC_\w+)/;
		my ($default) = $rest =~ /&\w+,\s*("[^"]*"|-?\d+)/;
		my ($unit) = $rest =~ /GUC_UNIT_(\w+)/;
		$found{$name} = [ $default, $word{$context}, $unit // '' ];
	}
	return %found;
}

# The rows of a page's tables whose first cell is `code`: name => [cells, line].
sub table
{
	my $path = shift;
	my (%found, $number);
	for (split /\n/, slurp($path))
	{
		$number++;
		next unless /^\|\s*`([^`]+)`\s*\|(.*)\|\s*$/;
		fault("$path:$number: $1 stands there twice") if exists $found{$1};
		$found{$1} = [ [ map { s/^\s+|\s+$//gr } split(/(?<!\\)\|/, $2) ], $number ];
	}
	return %found;
}

1;
