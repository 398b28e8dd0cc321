"""Python's smtplib."""

from __future__ import annotations

import smtplib
import sys
from pathlib import Path

SENDER, RECIPIENT = "no-reply@bench.example", "user@example.net"
WITHIN_S = 30.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        return
    host, port, template = sys.argv[1:]
    content = Path(template).read_bytes()
    for line in sys.stdin:
        try:
            with smtplib.SMTP(host, int(port), local_hostname="app.example", timeout=WITHIN_S) as client:
                client.sendmail(SENDER, [RECIPIENT], content.replace(b"0" * 16, line.strip().encode(), 1))
        except (OSError, smtplib.SMTPException) as error:
            print(repr(error), flush=True)
        else:
            print("sent", flush=True)


if __name__ == "__main__":
    main()
