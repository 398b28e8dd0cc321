# Perl's Net::SMTP, line by line as its documentation shows.
use strict;
use warnings;
use Net::SMTP;

exit 0 if $ARGV[0] eq '--check';
my ($host, $port, $template) = @ARGV;
open(my $file, '<', $template) or die "$template: $!";
my $content = do { local $/; <$file> };
$| = 1;
while (my $id = <STDIN>) {
    chomp $id;
    (my $message = $content) =~ s/0{16}/$id/;
    my $smtp = Net::SMTP->new($host, Port => $port, Hello => 'app.example', Timeout => 30);
    if (!$smtp) { print "no connection\n"; next; }
    my $sent = $smtp->mail('no-reply@bench.example') && $smtp->to('user@example.net') && $smtp->data();
    if ($sent) {
        $smtp->datasend($_) for split /(?<=\n)/, $message;
        $sent = $smtp->dataend();
    }
    my $reply = $smtp->message // '';
    $smtp->quit;
    $reply =~ s/\n/ /g;
    print $sent ? "sent\n" : "refused: $reply\n";
}
