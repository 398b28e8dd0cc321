"""Findings of the doctor: one value for each check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["ok", "warn", "fail", "unknown"]
"""`unknown`: the check was not possible. It counts as a warning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `area`: the group of the check. `subject`: a domain, an upstream, a file. `hint`: what to
    do, except for `ok`. `id`: of the check, the same in every version. None of them contains a credential."""

    area: str
    subject: str
    status: Status
    text: str
    hint: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """Makes the findings about one subject. `id`: of the check; '': the area has one check only."""

    area: str
    subject: str = ""
    id: str = ""

    def named(self, check: str) -> About:
        """The same subject, by the check of that id."""
        return replace(self, id=check)

    def found(self, status: Status, text: str, hint: str = "") -> Finding:
        return Finding(self.area, self.subject, status, text, hint, self.id or self.area)

    def ok(self, text: str) -> Finding:
        return self.found("ok", text)

    def warn(self, text: str, hint: str) -> Finding:
        return self.found("warn", text, hint)

    def fail(self, text: str, hint: str) -> Finding:
        return self.found("fail", text, hint)

    def unknown(self, text: str, hint: str) -> Finding:
        return self.found("unknown", text, hint)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all well, 1 a warning, 2 a failure."""
    statuses = {finding.status for finding in findings}
    if "fail" in statuses:
        return 2
    return 1 if statuses & {"warn", "unknown"} else 0
