"""Programs as they are, unchanged, as the app: what they submit arrives with its envelope and its text."""

from __future__ import annotations

import asyncio
import email
import itertools
import os
import shutil
import smtplib
import sys
import tomllib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import aiosmtplib
import pytest
import pytest_asyncio

from tests.support.relay import RelayProcess, get, time_line, write_config
from tests.support.upstream import Received, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()
SENDER = "app@example.com"
TEXT = "Grüße, the code is here\r\n.\r\n..and a dot\r\n"
WITHIN_S = 30.0


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    upstream: Upstream
    directory: Path

    async def arrived(self, recipient: str) -> Received:
        """The one message for that recipient."""
        upstream = self.upstream
        await upstream.wait_until(lambda: any(recipient in one.recipients for one in upstream.messages))
        (only,) = [one for one in upstream.messages if recipient in one.recipients]
        return only

    @property
    def socket(self) -> str:
        return str(self.directory / "smtp.sock")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("apps")
    listen = [
        {"address": "127.0.0.1:0"},
        {"address": f"unix:{directory}/smtp.sock"},
        {"address": "127.0.0.2:0", "auth": "any"},
    ]
    async with (
        Upstream() as upstream,
        RelayProcess(write_config(directory, {"one": upstream}, listen=listen, workers=0)) as relay,
    ):
        yield World(relay, upstream, directory)


def somebody() -> str:
    return f"user{next(_numbers)}@example.net"


def lines(content: bytes) -> bytes:
    """The body."""
    return content.partition(b"\r\n\r\n")[2]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str


async def program(
    arguments: Sequence[str], given: bytes = b"", *, directory: Path, environment: dict[str, str] | None = None
) -> Ended:
    """A program's end. Skips where it isn't installed."""
    path = shutil.which(arguments[0])
    if path is None:
        pytest.skip(f"no {arguments[0]}")
    process = await asyncio.create_subprocess_exec(
        path, *arguments[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "HOME": str(directory), **(environment or {})},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(given), WITHIN_S)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode("utf-8", "replace"))


def eml(to: str) -> bytes:
    return f"From: {SENDER}\r\nTo: {to}\r\nSubject: hello\r\n\r\n{TEXT}".encode()


async def test_smtplib_with_an_email_message(world: World) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"The App <{SENDER}>", (to := somebody()), "héllo"
    message["Bcc"] = (hidden := somebody())
    message.set_content(TEXT)
    message.add_alternative(f"<p>{TEXT}</p>", subtype="html")
    message.add_attachment(b"\0\1\2" * 1000, maintype="application", subtype="octet-stream", filename="x.bin")
    message.as_bytes()  # settles the boundaries

    def submit() -> None:
        with smtplib.SMTP(*world.relay.smtp, timeout=WITHIN_S) as client:
            assert client.send_message(message) == {}

    await asyncio.to_thread(submit)
    received = await world.arrived(to)
    assert (received.sender, received.recipients) == (SENDER, (to, hidden))
    assert lines(received.content) == lines(message.as_bytes(policy=SMTP))


async def test_smtplib_that_logs_in_because_it_must(world: World) -> None:
    address = next(one for one in world.relay.smtp_addresses if one.startswith("127.0.0.2:")).rpartition(":")
    to = somebody()

    def submit() -> None:
        with smtplib.SMTP(address[0], int(address[2]), timeout=WITHIN_S) as client:
            client.login("whoever", "whatever")
            client.sendmail(SENDER, [to], eml(to))

    await asyncio.to_thread(submit)
    assert lines((await world.arrived(to)).content) == TEXT.encode()


async def test_smtplib_sends_three_hundred_messages_over_one_connection(world: World) -> None:
    several = [somebody() for _ in range(300)]

    def submit() -> None:
        with smtplib.SMTP(*world.relay.smtp, timeout=WITHIN_S) as client:
            for to in several:
                client.sendmail(SENDER, [to], eml(to))

    await asyncio.to_thread(submit)
    for to in several:
        await world.arrived(to)


async def test_aiosmtplib(world: World) -> None:
    host, port = world.relay.smtp
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, (to := somebody()), "héllo"
    message.set_content(TEXT)
    await aiosmtplib.send(message, hostname=host, port=port, timeout=WITHIN_S)
    assert lines((await world.arrived(to)).content) == lines(message.as_bytes(policy=SMTP))


@pytest.mark.real
@pytest.mark.parametrize("how", ["plain", "unix socket", "--pipeline", "--protocol=SMTP"])
async def test_swaks(world: World, how: str) -> None:
    host, port = world.relay.smtp
    place = ("--socket", world.socket) if how == "unix socket" else ("--server", host, "--port", str(port))
    options = how.split("=") if how.startswith("--") else []
    to = somebody()
    ended = await program(
        ["swaks", *place, *options, "--from", SENDER, "--to", to, "--body", "one line", "--h-Subject", "hello"],
        directory=world.directory,
    )
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert received.sender == SENDER
    assert b"one line" in lines(received.content)


@pytest.mark.real
@pytest.mark.parametrize("from_headers", [False, True])
async def test_msmtp(world: World, from_headers: bool) -> None:
    host, port = world.relay.smtp
    to, hidden = somebody(), somebody()
    how = ["-t"] if from_headers else ["-f", SENDER, to, hidden]
    given = f"From: {SENDER}\nTo: {to}\nBcc: {hidden}\nSubject: hello\n\n{TEXT}".replace("\r\n", "\n").encode()
    ended = await program(
        ["msmtp", "--file=/dev/null", f"--host={host}", f"--port={port}", f"--from={SENDER}", "--tls=off", *how],
        given,
        directory=world.directory,
    )
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert (received.sender, set(received.recipients)) == (SENDER, {to, hidden})
    assert b"Bcc" not in received.content
    assert lines(received.content) == TEXT.encode()


@pytest.mark.real
async def test_curl(world: World, tmp_path: Path) -> None:
    host, port = world.relay.smtp
    to = somebody()
    (tmp_path / "mail.eml").write_bytes(eml(to))
    ended = await program(
        ["curl", "-sS", f"smtp://{host}:{port}/app.example.com", "--mail-from", SENDER, "--mail-rcpt", to, "-T",
         str(tmp_path / "mail.eml")],
        directory=world.directory,
    )  # fmt: skip
    assert ended.code == 0, ended.out
    assert lines((await world.arrived(to)).content) == TEXT.encode()


PERL = r"""
use strict; use Net::SMTP;
my ($host, $port, $from, $to, $hello) = @ARGV;
local $/; my $text = <STDIN>;
my $smtp = Net::SMTP->new($host, Port => $port, Timeout => 20, Hello => $hello) or die "no connection";
$smtp->mail($from) or die "MAIL"; $smtp->to($to, { Notify => ['FAILURE'] }) or die "RCPT";
$smtp->data() or die "DATA"; $smtp->datasend($text); $smtp->dataend() or die "dot: " . $smtp->message;
$smtp->quit;
"""


@pytest.mark.real
async def test_perls_net_smtp(world: World) -> None:
    host, port = world.relay.smtp
    to = somebody()
    ended = await program(
        ["perl", "-e", PERL, host, str(port), SENDER, to, "app.example.com"], eml(to), directory=world.directory
    )
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert "NOTIFY=FAILURE" in received.rcpts[0]
    assert lines(received.content) == TEXT.encode()


@pytest.mark.real
async def test_postfixs_smtp_source(world: World) -> None:
    """HELO only, and QUIT behind the dot."""
    source = shutil.which("smtp-source", path="/usr/sbin:/usr/bin")
    if source is None:
        pytest.skip("no smtp-source (Debian: postfix)")
    host, port = world.relay.smtp
    to = somebody()
    before = len(world.upstream.messages)
    ended = await program(
        [source, "-s", "5", "-m", "50", "-l", "2000", "-f", SENDER, "-t", to, f"{host}:{port}"],
        directory=world.directory,
    )
    assert ended.code == 0, ended.out
    await world.upstream.wait_for(before + 50)


NODE = """
const [host, port, from, to, text] = process.argv.slice(1);
require('nodemailer').createTransport({ host, port: Number(port) }).sendMail(
  { from: `Die App <${from}>`, to, subject: 'Grüße', text, dsn: { notify: ['failure'], return: 'headers' } }).then(
  () => process.exit(0), error => { console.error(error); process.exit(1); });
"""


@pytest.mark.real
async def test_nodemailer(world: World) -> None:
    """It leaves without QUIT."""
    here = await program(["node", "-e", "require('nodemailer')"], directory=world.directory)
    if here.code != 0:
        pytest.skip("no nodemailer (npm)")
    host, port = world.relay.smtp
    to = somebody()
    ended = await program(["node", "-e", NODE, host, str(port), SENDER, to, TEXT], directory=world.directory)
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert received.sender == SENDER
    assert "RET=HDRS" in received.mail_from
    assert email.message_from_bytes(received.content).get_payload(decode=True) == TEXT.encode()


PHP = r"""
[, $autoload, $host, $port, $from, $to, $text, $auth] = $argv;
require $autoload;
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP(); $mail->Host = $host; $mail->Port = (int) $port; $mail->Timeout = 20;
if ($auth) { $mail->SMTPAuth = true; $mail->Username = 'u'; $mail->Password = 'p'; }
$mail->CharSet = 'UTF-8'; $mail->Encoding = '8bit'; $mail->dsn = 'FAILURE';
$mail->setFrom($from, 'Die App'); $mail->addAddress($to); $mail->Subject = 'Grüße'; $mail->Body = $text;
$mail->send();
"""
PHPMAILER = "/usr/share/php/libphp-phpmailer/autoload.php"


@pytest.mark.real
@pytest.mark.parametrize("auth", ["", "yes"])
async def test_phpmailer(world: World, auth: str) -> None:
    """As it comes: TLS if it is offered, AUTH LOGIN, 8-bit text without BODY=8BITMIME."""
    if not Path(PHPMAILER).exists():
        pytest.skip("no PHPMailer (Debian: libphp-phpmailer)")
    address = next(one for one in world.relay.smtp_addresses if one.startswith("127.0.0.2:" if auth else "127.0.0.1:"))
    host, _, port = address.rpartition(":")
    to = somebody()
    ended = await program(
        ["php", "-r", PHP, "--", PHPMAILER, host, port, SENDER, to, TEXT, auth], directory=world.directory
    )
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert (received.sender, received.recipients) == (SENDER, (to,))
    assert "NOTIFY=FAILURE" in received.rcpts[0]
    assert lines(received.content).rstrip() == TEXT.encode().rstrip()


@pytest.mark.real
async def test_git_send_email(world: World, tmp_path: Path) -> None:
    host, port = world.relay.smtp
    to = somebody()
    (tmp_path / "0001.patch").write_text(
        f"From 0123 Mon Sep 17 00:00:00 2001\nFrom: {SENDER}\nDate: Sat, 1 Mar 2025 09:05:07 +0000\n"
        f"Subject: [PATCH] größer\n\n{TEXT}".replace("\r\n", "\n")
    )
    here = await program(["git", "send-email", "-h"], directory=world.directory)
    if "not a git command" in here.out or "Can't locate" in here.out:
        pytest.skip("no git send-email (Debian: git-email)")
    ended = await program(
        ["git", "send-email", "--confirm=never", "--quiet", f"--smtp-server={host}", f"--smtp-server-port={port}",
         "--from", SENDER, "--to", to, "--8bit-encoding=UTF-8", "--suppress-cc=all", str(tmp_path / "0001.patch")],
        directory=world.directory,
        environment={"GIT_AUTHOR_NAME": "app", "GIT_COMMITTER_NAME": "app", "GIT_AUTHOR_EMAIL": SENDER,
                     "GIT_COMMITTER_EMAIL": SENDER},
    )  # fmt: skip
    assert ended.code == 0, ended.out
    assert (await world.arrived(to)).sender == SENDER


async def test_django(world: World) -> None:
    backend = pytest.importorskip("django.core.mail.backends.smtp", reason="no Django")
    from django.conf import settings
    from django.core.mail import EmailMultiAlternatives

    if not settings.configured:
        settings.configure()
    host, port = world.relay.smtp
    to, hidden = somebody(), somebody()

    def submit() -> int:
        connection = backend.EmailBackend(host=host, port=port, timeout=WITHIN_S)
        message = EmailMultiAlternatives("Ihr Code", TEXT, SENDER, [to], [hidden], connection=connection)
        message.attach_alternative("<p>Grüße</p>", "text/html")
        return int(message.send())

    assert await asyncio.to_thread(submit) == 1
    assert set((await world.arrived(to)).recipients) == {to, hidden}


# sendmail(8), under both its names.

SENDMAIL = (sys.executable, "-m", "relay", "sendmail")
SENDMAIL_ALONE = (sys.executable, "-c", "from relay.cli.sendmail import main; main()")


async def sendmail(world: World, *arguments: str, given: bytes, socket: bool = False, alone: bool = False) -> Ended:
    host, port = world.relay.smtp
    place = f"unix:{world.socket}" if socket else f"{host}:{port}"
    return await program(
        [*(SENDMAIL_ALONE if alone else SENDMAIL), *arguments],
        given,
        directory=world.directory,
        environment={"OTP_RELAY_SUBMIT": place},
    )


@pytest.mark.parametrize("socket", [False, True])
@pytest.mark.parametrize("alone", [False, True])
async def test_sendmail_takes_recipients_from_the_command_line(world: World, socket: bool, alone: bool) -> None:
    one, two = somebody(), somebody()
    given = f"Subject: hello\n\n{TEXT}".replace("\r\n", "\n").encode()
    ended = await sendmail(world, "-i", "-f", SENDER, one, two, given=given, socket=socket, alone=alone)
    assert (ended.code, ended.out) == (0, "")
    received = await world.arrived(one)
    assert (received.sender, received.recipients) == (SENDER, (one, two))
    assert lines(received.content) == TEXT.encode()
    shown = await time_line(world.relay, (await listed(world, one))["id"], "sent")
    assert shown["client"] == ("unix" if socket else "127.0.0.1")


async def test_sendmail_t_reads_every_recipient_and_takes_bcc_out(world: World) -> None:
    to, cc, bcc, more = somebody(), somebody(), somebody(), somebody()
    given = f'To: "A, B" <{to}>\nCc: {cc}\nBcc: {bcc},\n {more}\nSubject: hello\n\nhi\n'.encode()
    ended = await sendmail(world, "-t", "-i", f"-f{SENDER}", given=given)
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert set(received.recipients) == {to, cc, bcc, more}
    assert b"Bcc" not in received.content
    assert bcc.encode() not in received.content
    assert more.encode() not in received.content


async def test_phps_mail_function(world: World) -> None:
    """`mail()` runs `sendmail -t -i -fADDR` with CRLF in its headers and LF in the body."""
    to = somebody()
    given = (
        f"To: {to}\r\nSubject: Your code\r\nFrom: {SENDER}\r\nX-PHP: yes\r\n\r\nline one\nline two\n\n.\nend".encode()
    )
    ended = await sendmail(world, "-t", "-i", f"-f{SENDER}", given=given)
    assert ended.code == 0, ended.out
    received = await world.arrived(to)
    assert received.sender == SENDER
    assert lines(received.content) == b"line one\r\nline two\r\n\r\n.\r\nend\r\n"
    assert b"\n" not in received.content.replace(b"\r\n", b"")


async def test_a_single_dot_ends_the_message_unless_told(world: World) -> None:
    to = somebody()
    ended = await sendmail(world, "-f", SENDER, to, given=b"Subject: x\n\none\n.\ntwo\n")
    assert ended.code == 0, ended.out
    assert lines((await world.arrived(to)).content) == b"one\r\n"


SYSEXITS = [
    (("-f", SENDER), b"Subject: x\n\nx\n", 64),
    (("-t", "-f", SENDER), b"Subject: x\n\nx\n", 64),
    (("--no-such-option",), b"", 64),
    (("-f", SENDER, "not an address@"), b"x\n", 64),
]


@pytest.mark.parametrize(("arguments", "given", "code"), SYSEXITS)
async def test_sendmail_ends_as_sysexits_says(
    world: World, arguments: tuple[str, ...], given: bytes, code: int
) -> None:
    ended = await sendmail(world, *arguments, given=given)
    assert ended.code == code, ended.out
    assert len(ended.out.splitlines()) == 1
    assert "Traceback" not in ended.out


async def test_without_a_relay_sendmail_asks_to_try_again(world: World) -> None:
    ended = await program(
        [*SENDMAIL, "-f", SENDER, somebody()],
        b"x\n",
        directory=world.directory,
        environment={"OTP_RELAY_SUBMIT": "127.0.0.1:9"},
    )
    assert ended.code == 75
    assert len(ended.out.splitlines()) == 1


async def test_both_names_of_sendmail_are_installed() -> None:
    scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"otp-relay": "relay.__main__:main", "otp-relay-sendmail": "relay.cli.sendmail:main"}


async def listed(world: World, to: str) -> dict[str, str]:
    """The newest message to that address."""
    found: list[dict[str, str]] = (await get(world.relay, f"/api/messages?to={to}")).document
    return found[0]
