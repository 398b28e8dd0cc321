"""The words of the configuration that aren't plain YAML, as values: durations, sizes, rates, counts, paths.

Each function takes what YAML gives and returns the typed value, or raises ValueError with what was expected (the
loader adds file, line and key). `info` is a validator's: while a file is being loaded its context is an `Origin`;
without one the value comes from code, where numbers are already in the unit that the field names.

Commands and the HTTP API read such words too, so nothing here loads pydantic; `units` makes its types of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relay.config.values import Expanded, Origin, shown

if TYPE_CHECKING:
    from pydantic import ValidationInfo

_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(_NUMBER + r"(ms|s|m|h|d)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(_NUMBER + r" ?(B|KB|MB|GB|KiB|MiB|GiB)")
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
RATE = re.compile(_NUMBER + r"/(s|m|h|d)")
_WHOLE = re.compile(r"[0-9]{1,9}")

DEFAULT_STORE = Path("data/relay.db")
"""relative to the configuration file's folder"""
DEFAULT_HTTP = "127.0.0.1:8025"

LONGEST_S = 10 * 365 * 86400.0
LARGEST_BYTES = 2**40


def _from_code(value: object, info: ValidationInfo | None, *kinds: type) -> bool:
    """Whether this is a default or a test's value, already typed: YAML's numbers never count as one."""
    return (info is None or info.context is None) and isinstance(value, kinds) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    """A number without a unit, as YAML gives it: 10, or "10"."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and not isinstance(value, Expanded) and _WHOLE.fullmatch(value) is not None
    )


def _hint(value: object, *spellings: str) -> str:
    """` ; did you mean 10s or 10m?` behind a number that lacks its unit."""
    if not _is_whole(value):
        return ""
    return "; did you mean " + " or ".join(f"{value}{spelling}" for spelling in spellings) + "?"


def parse_duration(value: Any, info: ValidationInfo | None) -> float:
    """`200ms`, `2s`, `10m`, `1h`, `2d` → seconds, more than none."""
    seconds = parse_duration_or_zero(value, info)
    if seconds <= 0 and isinstance(value, str):
        raise ValueError(f"expected a duration of more than zero, got {shown(value)}")
    return seconds


def parse_duration_or_zero(value: Any, info: ValidationInfo | None) -> float:
    """As `parse_duration`, and `0s` → 0."""
    if _from_code(value, info, float, int):
        return float(value)
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"expected a duration such as 200ms, 2s, 10m, 1h or 2d, got {shown(value)}{_hint(value, 's', 'm')}"
        )
    seconds = float(found[1]) * _DURATION_S[found[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"expected a duration of at most ten years (3650d), got {shown(value)}")
    return seconds


def parse_size(value: Any, info: ValidationInfo | None) -> int:
    """`25MB`, `512KiB` → bytes, at least one."""
    if _from_code(value, info, int):
        return int(value)
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a size such as 512KB, 25MB or 1GiB, got {shown(value)}{_hint(value, 'MB')}")
    size_bytes = int(float(found[1]) * _SIZE_BYTES[found[2]])
    if not 1 <= size_bytes <= LARGEST_BYTES:
        raise ValueError(f"expected a size from 1B to 1024GiB, got {shown(value)}")
    return size_bytes


def parse_rate(value: Any, info: ValidationInfo | None) -> float:
    """`50/s`, `30/m` → a second."""
    if _from_code(value, info, float, int):
        return float(value)
    found = RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a rate such as 50/s or 30/m, got {shown(value)}{_hint(value, '/s')}")
    per_second = float(found[1]) / _DURATION_S[found[2]]
    if per_second <= 0:
        raise ValueError(f"expected a rate of more than zero, got {shown(value)}")
    return per_second


def whole(least: int, most: int, expected: str) -> Callable[[Any], int]:
    """A parser of whole numbers within these bounds; `expected` is what it says of anything else."""

    def parse(value: Any) -> int:
        number = value
        if isinstance(value, Expanded) and _WHOLE.fullmatch(value):
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise ValueError(f"expected {expected}, got {shown(value)}")
        return number

    return parse


def parse_flag(value: Any) -> bool:
    """`true` or `false`; YAML 1.1's yes, no, on and off are refused by name."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false") and isinstance(value, Expanded):
        return value.lower() == "true"
    word = value.lower() if isinstance(value, str) and not isinstance(value, Expanded) else ""
    meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(word, "")
    if word in ("true", "false"):
        meant = f"{word} (without quotes, in lower case)"
    raise ValueError(f"expected true or false, got {shown(value)}" + (f"; did you mean {meant}?" if meant else ""))


def parse_header_name(value: Any) -> str:
    """A header's name (RFC 5322 2.2), in lower case."""
    if not isinstance(value, str) or not is_header_name(value):
        raise ValueError(f"expected the name of a header, such as Message-ID, got {shown(value)}")
    return value.lower()


def is_header_name(text: str) -> bool:
    """RFC 5322 3.6.8: ftext, printable ASCII without the colon."""
    return re.fullmatch(r"[\x21-\x39\x3b-\x7e]{1,200}", text) is not None


def parse_workers(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    return whole(0, 64, "auto or a number from 0 to 64")(value)


def parse_path(value: Any, info: ValidationInfo | None) -> Path:
    """A path; a relative one is relative to the configuration file's folder."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, got {shown(value)}")
    path = Path(value)
    return info.context.folder / path if info is not None and isinstance(info.context, Origin) else path


def parse_store(value: Any, info: ValidationInfo | None) -> Path:
    """Where the store is: as `parse_path`, and no URL of a database server."""
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"expected the path of a file (SQLite is the only store so far), got {shown(value)}")
    return parse_path(value, info)
