# Says to everybody what its model says.
use strict;
use warnings;
use IO::Socket::INET;

$SIG{TERM} = sub { exit 0 };
$SIG{PIPE} = 'IGNORE';

chomp( my $words = do { local ( @ARGV, $/ ) = '/opt/model/words.txt'; <> } );
my $door = IO::Socket::INET->new( LocalPort => 9000, Listen => 64, ReuseAddr => 1 ) or die "port 9000: $!\n";

while (1) {
    my $client = $door->accept or next;
    my $head = '';
    while ( my $line = <$client> ) {
        last if $line =~ /^\r?\n$/;
        $head .= $line;
    }
    print $client answered($head);
    close $client;
}

sub answered {
    my ($head) = @_;
    return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($words) . "\r\nConnection: close\r\n\r\n$words";
}
