"""What the relay itself takes for a code when nothing else goes on: loopback upstream, warm session, signed, durable.

`python -m bench.idle [--quick] [--repeat N] [--no-postfix]`: 1,000 codes, beside the floor and Postfix in the same run.
It is the row `loopback` of `bench.otp`, alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import otp


def main(argv: Sequence[str] | None = None) -> int:
    return otp.main(["--rows", "loopback", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
