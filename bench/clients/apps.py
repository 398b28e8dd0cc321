"""The mail libraries and programs that are measured, and how each is started."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.process import ROOT, module

_HERE = Path(__file__).parent
_NODE_PATH = os.environ.get("NODE_PATH") or ROOT / ".venv/npm/node_modules"
_CHECK_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class App:
    name: str
    title: str
    comes_from: str
    argv: tuple[str, ...]
    """without HOST PORT TEMPLATE"""
    body_bytes: int = 2048

    @property
    def installed(self) -> bool:
        try:
            done = subprocess.run(
                [*self.argv, "--check"], cwd=ROOT, capture_output=True, timeout=_CHECK_WITHIN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def _program(interpreter: str, file: str) -> tuple[str, ...]:
    return (interpreter, str(_HERE / file))


APPS = (
    App("phpmailer", "PHPMailer", "Debian: php-cli, libphp-phpmailer", _program("php", "phpmailer.php")),
    App("nodemailer", "nodemailer", "npm, in NODE_PATH or .venv/npm",
        ("env", f"NODE_PATH={_NODE_PATH}", *_program("node", "nodemailer.js"))),
    App("smtplib", "Python's smtplib", "Python", tuple(module("clients.python_smtplib"))),
    App("msmtp", "msmtp", "Debian: msmtp", _program("sh", "msmtp.sh")),
    App("ruby", "Ruby's Net::SMTP", "Debian: ruby", _program("ruby", "net_smtp.rb")),
    App("perl", "Perl's Net::SMTP", "Debian: perl", _program("perl", "net_smtp.pl")),
    App("swaks", "swaks, 20 kB", "Debian: swaks", _program("sh", "swaks.sh"), body_bytes=20_000),
)  # fmt: skip
