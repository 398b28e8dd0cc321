"""How much of each room's branches ran: `python -m tests.support.branches FILE LEAST ROOM...` over `coverage json`.

Coverage's own `fail_under` counts lines and branches together, and lines flatter: what is held is the branches alone.
Exit 1 when a room has less than LEAST per cent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Room:
    name: str
    branches: int
    covered: int
    missing: Mapping[str, str]
    """file → its branches that never ran, as `line->line`, by line"""

    @property
    def per_cent(self) -> float:
        return 100.0 * self.covered / self.branches if self.branches else 100.0


def room(name: str, files: Mapping[str, Any]) -> Room:
    """The room `relay/NAME` of a coverage report's `files`. Raises LookupError where it has none."""
    inside = {path: file for path, file in files.items() if path.startswith(f"relay/{name}/")}
    if not inside:
        raise LookupError(f"nothing of relay/{name} was measured")
    totals = [file["summary"] for file in inside.values()]
    missing = {path: _arcs(file["missing_branches"]) for path, file in inside.items() if file["missing_branches"]}
    return Room(
        name, sum(one["num_branches"] for one in totals), sum(one["covered_branches"] for one in totals), missing
    )


def _arcs(missing: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{begin}->{'exit' if end < 0 else end}" for begin, end in sorted(missing))


def main(arguments: list[str]) -> int:
    report, least, *names = arguments
    files = json.loads(Path(report).read_text())["files"]
    rooms = [room(name, files) for name in names]
    for one in rooms:
        for path, arcs in one.missing.items():
            print(f"{path}: {arcs}")
    for one in rooms:
        print(f"relay/{one.name}: {one.covered} of {one.branches} branches, {one.per_cent:.1f} %")
    short = [one.name for one in rooms if one.per_cent < float(least)]
    if short:
        print(f"less than {least} %: {', '.join(short)}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
