#!/usr/bin/perl
# SPDX-License-Identifier: BSD-2-Clause
# Every message of the program is in the manual's DIAGNOSTICS, and no other: any
# string of two words or more in the sources, but for the help text, has to be
# there, and every entry must be made of such strings.
use strict;
use warnings;

my ($manual, @sources) = @ARGV;
my $failed = 0;

sub slurp {
	open my $file, '<', $_[0] or die "$_[0]: $!\n";
	local $/;
	return <$file>;
}

# What the two spell differently: white space, and how numbers are printed
sub plain {
	my ($text) = @_;
	$text =~ s/%#?l*[dux]/%/g;
	$text =~ s/'?%s'?/%/g;
	$text =~ s/\s+/ /g;
	$text =~ s/^ | $//g;
	return $text;
}

sub complain {
	print "@_\n";
	$failed = 1;
}

my $diagnostics = slurp($manual);
$diagnostics =~ s/.*?^\.Sh DIAGNOSTICS$//ms;
$diagnostics =~ s/^\.Sh .*//ms;
my @entries = map { plain($_) } $diagnostics =~ /^\.It "(.*)"$/mg;
my $manual_text = plain($diagnostics);

my @strings;
for my $source (@sources) {
	my $text = slurp($source);
	$text =~ s{/\*.*?\*/}{}gs;
	$text =~ s/^\s*#.*$//mg;
	$text =~ s/_Static_assert\(.*?\);//gs;
	$text =~ s/(?:help|usage)\[\] =.*?;\n//gs;
	while ($text =~ /"((?:\\.|[^"\\])*)"((?:\s*"(?:\\.|[^"\\])*")*)/g) {
		my ($string, $more) = ($1, $2);
		$string .= $1 while $more =~ /"((?:\\.|[^"\\])*)"/g;
		$string =~ s/\\n//g;
		push @strings, [$source, plain($string)];
	}
}

# Those with a hole for what is done or why are frames for others.
my @frames = grep { $_->[1] =~ /^(?:domain %: )?cannot %|^% %$|^% %: %$/ } @strings;
for my $string (@strings) {
	my ($source, $text) = @$string;
	next if $text !~ /[a-z]{2,} [a-z%]/i or $text =~ m{/|^%} && $text !~ /[a-z]+ [a-z]+/;
	next if $text eq 'vdisk %' or grep { $_->[1] eq $text } @frames;
	$text =~ s/^%+ |: %$//g;
	(my $short = $text) =~ s/ \(.*//;	# the manual has "..." for a hint
	complain("$source: not in $manual: \"$text\"") if index($manual_text, $text) < 0
	    and index($manual_text, $short . ' ...') < 0;
}

# Of an entry: what is left without names, frames and the system's own words
my $all = join "\n", map { $_->[1] } @strings;
for my $entry (@entries) {
	next if $entry =~ /^usage: |invalid option|^Could not obtain/;
	my $text = $entry;
	$text =~ s/^(?:vdisk: )?(?:[A-Z_]+ %: )?//;
	$text =~ s/^domain %: cannot |^cannot //;
	$text =~ s/(?: \.\.\.)?: \.\.\.$//;
	$text =~ s/^read at /% at /;
	$text =~ s/ %$//;
	next if grep { index($all, $_) >= 0 } $text, "$text %";
	my @parts = grep { /\w/ } split / ?% ?/, $text;
	complain("$manual: no such message: \"$entry\"") if grep { index($all, $_) < 0 } @parts;
}
exit $failed;
