"""Signatures verify with Perl's Mail::DKIM, OpenDKIM, and mailauth for Node."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from tests.mail.material import OTP, published, signed

pytestmark = pytest.mark.real

SAMPLES = {
    "plain": OTP,
    "no body": b"From: a@example.com\r\n\r\n",
    "only header": b"From: a@example.com\r\n",
    "blank lines": b"From: a@example.com\r\nSubject:  a \t b\r\n\r\n \r\n x \t y \r\n\r\n\t\r\n\r\n",
    "8-bit": b"From: a@example.com\r\nSubject: \xc3\xa4\r\n\r\n\xc3\xa4\xff\r\n",
    "twice": b"From: a@example.com\r\nTo: a\r\nTo:\r\n\tb\r\n\r\nx\r\n",
    "large": b"From: a@example.com\r\n\r\n" + b"line with  blanks \r\n" * 20_000,
}

# OpenDKIM's reader of test files refuses the obsolete blank, like dkimpy; RFC 6376 3.4.2 deletes it.
SAMPLES_FOR_PERL = SAMPLES | {"blank before the colon": b"From: a@example.com\r\nSubject \t: x\r\nX-A : y\r\n\r\nx\r\n"}


def with_more_text(content: bytes) -> bytes:
    return content + (b"" if b"\r\n\r\n" in content else b"\r\n") + b"added\r\n"


class TxtServer(threading.Thread):
    """Answers TXT questions over UDP on a loopback port, from a table."""

    def __init__(self, records: dict[str, str]) -> None:
        super().__init__(name="txt-server", daemon=True)
        self._records = records
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            wire, peer = self._socket.recvfrom(4096)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.AA | dns.flags.RA
            name = query.question[0].name
            record = self._records.get(name.to_text(omit_final_dot=True))
            if record is not None:
                strings = " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", strings))
            self._socket.sendto(answer.to_wire(), peer)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self.join(timeout=5)
        self._socket.close()


@pytest.fixture(scope="module")
def txt_server() -> Iterator[TxtServer]:
    server = TxtServer(published("s1", "e1"))
    server.start()
    yield server
    server.stop()


PERL = """
use strict; use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(
    nameservers => ['127.0.0.1'], port => $ARGV[0], recurse => 1, udp_timeout => 5, retry => 1));
for my $file (@ARGV[1 .. $#ARGV]) {
    my $verifier = Mail::DKIM::Verifier->new();
    open my $message, '<:raw', $file or die; local $/;
    $verifier->PRINT(<$message>); $verifier->CLOSE;
    print join(",", map { $_->result } $verifier->signatures), "\\n";
}
"""


def perl_has_mail_dkim() -> bool:
    if shutil.which("perl") is None:
        return False
    return subprocess.run(["perl", "-MMail::DKIM", "-e1"], capture_output=True, check=False, timeout=20).returncode == 0


def test_mail_dkim_for_perl_verifies(txt_server: TxtServer, tmp_path: Path) -> None:
    if not perl_has_mail_dkim():
        pytest.skip("no Perl with Mail::DKIM (Debian: libmail-dkim-perl)")
    files: list[Path] = []
    expected: list[tuple[str, str]] = []
    for sample, content in SAMPLES_FOR_PERL.items():
        made = signed(content, "s1")
        for change, verdict in ((made, "pass"), (with_more_text(made), "fail"), (b"Subject: added\r\n" + made, "fail")):
            path = tmp_path / f"{len(files)}.eml"
            path.write_bytes(change)
            files.append(path)
            expected.append((sample, verdict))
    done = subprocess.run(
        ["perl", "-e", PERL, str(txt_server.port), *files], capture_output=True, check=True, timeout=50
    )
    verdicts = done.stdout.decode().split("\n")[:-1]
    assert [(sample, verdict) for (sample, _), verdict in zip(expected, verdicts, strict=True)] == expected


@pytest.mark.parametrize("sample", SAMPLES)
def test_opendkim_verifies_both_algorithms(sample: str, tmp_path: Path) -> None:
    opendkim = shutil.which("opendkim", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if opendkim is None:
        pytest.skip("no opendkim (Debian: opendkim)")
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {record}\n" for name, record in published("s1", "e1").items()))
    configuration = tmp_path / "opendkim.conf"
    configuration.write_text(f"Mode v\nSyslog no\nTestPublicKeys {keys}\nSocket local:{tmp_path}/socket\n")

    def verdicts(content: bytes) -> list[str]:
        message = tmp_path / "message.eml"
        message.write_bytes(content)
        done = subprocess.run(
            [opendkim, "-x", configuration, "-t", message, "-vv"], capture_output=True, check=False, timeout=30
        )
        results = (done.stdout + done.stderr).decode()
        return [line.split("dkim=")[1].split()[0] for line in results.splitlines() if "\tdkim=" in line]

    content = signed(SAMPLES[sample], "s1", "e1")
    assert verdicts(content) == ["pass", "pass"]
    assert verdicts(with_more_text(content)) == ["fail", "fail"]
    assert verdicts(b"Subject: added\r\n" + content) == ["fail", "fail"]


# Without the blank line behind it mailauth sees no header section at all.
SAMPLES_FOR_NODE = {name: content for name, content in SAMPLES.items() if name != "only header"}
NODE = """
const { dkimVerify } = require('mailauth/lib/dkim/verify');
const fs = require('fs');
const records = JSON.parse(process.argv[1]);
const resolver = async (name, type) => {
  if (type === 'TXT' && records[name]) return [[records[name]]];
  throw Object.assign(new Error('not found'), { code: 'ENOTFOUND' });
};
(async () => {
  for (const file of process.argv.slice(2)) {
    const { results } = await dkimVerify(fs.readFileSync(file), { resolver });
    console.log(results.map(one => one.status.result).join(','));
  }
})();
"""


def test_mailauth_verifies_both_algorithms(tmp_path: Path) -> None:
    node = shutil.which("node")
    here = node and subprocess.run([node, "-e", "require('mailauth')"], capture_output=True, check=False, timeout=30)
    if not node or not here or here.returncode != 0:
        pytest.skip("no mailauth for Node (npm)")
    files: list[Path] = []
    expected: list[tuple[str, str]] = []
    for sample, content in SAMPLES_FOR_NODE.items():
        made = signed(content, "s1", "e1")
        for change, verdict in ((made, "pass,pass"), (with_more_text(made), "neutral,neutral")):
            path = tmp_path / f"{len(files)}.eml"
            path.write_bytes(change)
            files.append(path)
            expected.append((sample, verdict))
    done = subprocess.run(
        [node, "-e", NODE, json.dumps(published("s1", "e1")), *files], capture_output=True, check=True, timeout=50
    )
    verdicts = done.stdout.decode().split("\n")[:-1]
    assert [(sample, verdict) for (sample, _), verdict in zip(expected, verdicts, strict=True)] == expected
