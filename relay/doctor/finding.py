"""What the doctor has to say: one value a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "unknown"]
"""`unknown`: it could not be checked. That is a warning, never a pass."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`area` is the group, `subject` what in it is meant (a domain, an upstream, a file). `hint`: what to do, for all
    but `ok`. Neither holds a credential."""

    area: str
    subject: str
    status: Status
    text: str
    hint: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all well, 1 a warning, 2 a failure."""
    statuses = {finding.status for finding in findings}
    if "fail" in statuses:
        return 2
    return 1 if statuses & {"warn", "unknown"} else 0
