<?php
// PHPMailer as it comes (Debian: libphp-phpmailer).
$autoload = '/usr/share/php/libphp-phpmailer/autoload.php';
if (!file_exists($autoload)) {
    exit(1);
}
require $autoload;
if ($argv[1] === '--check') {
    exit(class_exists('PHPMailer\PHPMailer\PHPMailer') ? 0 : 1);
}
[, $host, $port, $template] = $argv;
$text = explode("\r\n\r\n", file_get_contents($template), 2)[1];
while (($line = fgets(STDIN)) !== false) {
    try {
        $mail = new PHPMailer\PHPMailer\PHPMailer(true);
        $mail->isSMTP();
        $mail->Host = $host;
        $mail->Port = (int) $port;
        $mail->Hostname = 'app.example';
        $mail->setFrom('no-reply@bench.example', 'Codes');
        $mail->addAddress('user@example.net');
        $mail->Subject = 'Your code: 123456';
        $mail->addCustomHeader('X-Relay-Lane', 'otp');
        $mail->addCustomHeader('X-Bench-ID', trim($line));
        $mail->Body = $text;
        $mail->send();
        echo "sent\n";
    } catch (Exception $error) {
        echo str_replace("\n", ' ', $error->getMessage()), "\n";
    }
}
