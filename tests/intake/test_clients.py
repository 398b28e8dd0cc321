"""Programs that submit mail, unchanged."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.intake.harness import PATIENCE_S, Service, listener, service, whole
from tests.support.tls import Certificates

BODY = "Your code is 123456\r\n.leading dot\r\n\r\n.\r\nend"
PERL = r"""
use Net::SMTP;
my $smtp = Net::SMTP->new('127.0.0.1', Port => %d, Timeout => 10) or die "connect: $@";
$smtp->mail('a@x.test') and $smtp->to('b@x.test', 'c@x.test') and $smtp->data() or die $smtp->message;
$smtp->datasend("Subject: perl\n\n.dot\nend\n");
$smtp->dataend() or die $smtp->message;
$smtp->quit;
"""
NODE = """
const nodemailer = require('nodemailer');
const sender = nodemailer.createTransport({host: '127.0.0.1', port: %d, auth: {user: 'u', pass: 'p'}});
sender.sendMail({from: 'a@x.test', to: 'b@x.test', subject: 'node', text: '.dot\\nend'}).then(
  () => process.exit(0), error => { console.error(error); process.exit(1); });
"""


async def run(*command: str, given: bytes = b"") -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(3 * PATIENCE_S):
        out, _ = await process.communicate(given)
    assert process.returncode == 0, out.decode(errors="replace")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def with_smtplib(port: int, act: Callable[[smtplib.SMTP], None]) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S) as client:
        act(client)


async def test_smtplib_sends_over_one_connection_several_times() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x.test", "b@x.test, c@x.test", "Köln"
    message.set_content("ä\n.dot\n")

    def act(client: smtplib.SMTP) -> None:
        assert client.send_message(message) == {}
        assert client.sendmail("a@x.test", ["b@x.test", "no address"], BODY)["no address"][0] == 501
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@x.test", ["<>"], BODY)
        assert client.sendmail("", ["b@x.test"], BODY, ["RET=HDRS"], ["NOTIFY=NEVER"]) == {}

    async with service() as relay:
        await asyncio.to_thread(with_smtplib, relay.port, act)
    assert [len(each.envelope.recipients) for each in relay.recorder.taken] == [2, 1, 1]
    assert relay.recorder.taken[1].content == BODY.encode() + b"\r\n"
    assert relay.recorder.taken[2].envelope.sender == ""


async def test_smtplib_over_starttls_and_auth(certificates: Certificates) -> None:
    def act(client: smtplib.SMTP) -> None:
        client._host = "localhost"  # type: ignore[attr-defined] # the name in the certificate
        client.starttls(context=certificates.client_context())
        client.login("anyone", "anything")
        client.sendmail("a@x.test", ["b@x.test"], BODY)

    good = certificates.good
    door = listener(tls="starttls", auth="any", cert_file=good.cert_file, key_file=good.key_file)
    async with service(door) as relay:
        await asyncio.to_thread(with_smtplib, relay.port, act)
    assert [each.protocol for each in relay.recorder.taken] == ["ESMTPSA"]


async def test_smtplib_over_implicit_tls(certificates: Certificates) -> None:
    def act(context: ssl.SSLContext) -> None:
        with smtplib.SMTP_SSL("localhost", relay.port, timeout=PATIENCE_S, context=context) as client:
            client.sendmail("a@x.test", ["b@x.test"], BODY)

    good = certificates.good
    door = listener(tls="implicit", cert_file=good.cert_file, key_file=good.key_file)
    async with service(door) as relay:
        await asyncio.to_thread(act, certificates.client_context())
    assert [each.protocol for each in relay.recorder.taken] == ["ESMTPS"]


@pytest.mark.real
@needs("swaks")
async def test_swaks_pipelines_and_authenticates() -> None:
    async with service(listener(auth="any")) as relay:
        server = f"127.0.0.1:{relay.port}"
        await run("swaks", "--server", server, "--from", "a@x.test", "--to", "b@x.test,c@x.test", "--pipeline")
        await run("swaks", "--server", server, "--from", "<>", "--to", "b@x.test", "--protocol", "SMTP")
        await run(
            *("swaks", "--server", server, "--from", "a@x.test", "--to", "b@x.test", "--auth", "LOGIN"),
            *("--auth-user", "u", "--auth-password", "p"),
        )
    assert [each.protocol for each in relay.recorder.taken] == ["ESMTP", "SMTP", "ESMTPA"]


@pytest.mark.real
@needs("swaks")
async def test_swaks_over_tls(certificates: Certificates) -> None:
    good = certificates.good
    door = listener(tls="starttls", cert_file=good.cert_file, key_file=good.key_file)
    async with service(door) as relay:
        await run("swaks", "--server", f"127.0.0.1:{relay.port}", "--from", "a@x.test", "--to", "b@x.test", "--tls")
    assert [each.protocol for each in relay.recorder.taken] == ["ESMTPS"]


@pytest.mark.real
@needs("msmtp")
async def test_msmtp_asks_for_notifications() -> None:
    async with service() as relay:
        await run(
            *("msmtp", "--host=127.0.0.1", f"--port={relay.port}", "--from=a@x.test", "--dsn-notify=failure,delay"),
            *("--dsn-return=headers", "-t", "--"),
            given=b"To: b@x.test\nBcc: c@x.test\n\n.dot\nend\n",
        )
    (taken,) = relay.recorder.taken
    assert [each.notify for each in taken.envelope.recipients] == [frozenset({"FAILURE", "DELAY"})] * 2
    assert taken.envelope.ret == "HDRS"
    assert whole(taken.content).endswith(b".dot\r\nend\r\n")


@pytest.mark.real
@needs("curl")
async def test_curl_uploads_a_message(tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"Subject: curl\r\n\r\n.dot\r\nh\xc3\xa4\r\n")
    async with service() as relay:
        await run(
            *(
                "curl",
                "--silent",
                "--show-error",
                f"smtp://127.0.0.1:{relay.port}/client.test",
                "--mail-from",
                "a@x.test",
            ),
            *("--mail-rcpt", "b@x.test", "--upload-file", str(tmp_path / "message")),
        )
    assert relay.recorder.taken[0].content == b"Subject: curl\r\n\r\n.dot\r\nh\xc3\xa4\r\n"


@pytest.mark.real
@needs("perl")
async def test_perl_s_net_smtp() -> None:
    async with service() as relay:
        await run("perl", "-e", PERL % relay.port)
    assert relay.recorder.taken[0].content == b"Subject: perl\r\n\r\n.dot\r\nend\r\n"
    assert len(relay.recorder.taken[0].envelope.recipients) == 2


@pytest.mark.real
@needs("node")
@pytest.mark.parametrize("auth", ["none", "any"])
async def test_nodemailer_with_and_without_auth_being_offered(auth: str) -> None:
    async with service(listener(auth=auth)) as relay:
        await nodemailer(relay)
    assert whole(relay.recorder.taken[0].content).endswith(b".dot\r\nend\r\n")


async def nodemailer(relay: Service) -> None:
    try:
        await run("node", "-e", "require('nodemailer')")
    except AssertionError:
        pytest.skip("nodemailer is not installed")
    await run("node", "-e", NODE % relay.port)
