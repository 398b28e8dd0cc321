"""Configuration values that YAML has no type for: durations, sizes, rates, counts, header names, paths.

Each function takes what YAML gives and returns the typed value, or raises ValueError with what was expected; the
loader adds file, line and key. `info` is a pydantic validator's: its context is the folder of the configuration file
that is being loaded. Without a context the value comes from code, where a number already has the field's unit.

The commands and the HTTP API parse such values too, so nothing here imports pydantic or dataclasses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relay.config.masking import Expanded, shown

if TYPE_CHECKING:
    from pydantic import ValidationInfo

_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"
DURATION = re.compile(_NUMBER + r"(ms|s|m|h|d)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(_NUMBER + r" ?(B|KB|MB|GB|KiB|MiB|GiB)")
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
RATE = re.compile(_NUMBER + r"/(s|m|h|d)")
_SHARE = re.compile(_NUMBER + r" ?%")
_WHOLE = re.compile(r"[0-9]{1,9}")

DEFAULT_STORE = Path("data/relay.db")
"""relative to the configuration file's folder"""
DEFAULT_HTTP = "127.0.0.1:8025"

LONGEST_S = 10 * 365 * 86400.0
LARGEST_BYTES = 2**40


def _is_from_code(value: object, info: ValidationInfo | None, *kinds: type) -> bool:
    """Whether the value is typed already: a default or a test's value, never a number of the file."""
    return (info is None or info.context is None) and isinstance(value, kinds) and not isinstance(value, bool)


def _split(value: Any, pattern: re.Pattern[str], expected: str, *units: str) -> tuple[float, str]:
    """The number and its unit. The error suggests `units` behind a number that has none."""
    found = pattern.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        return float(found[1]), found[2]
    is_text = isinstance(value, str) and not isinstance(value, Expanded)
    is_bare = type(value) is int or (is_text and _WHOLE.fullmatch(value) is not None)
    hint = f"; did you mean {' or '.join(f'{value}{unit}' for unit in units)}?" if is_bare else ""
    raise ValueError(f"expected {expected}, got {shown(value)}{hint}")


def parse_duration(value: Any, info: ValidationInfo | None) -> float:
    """`200ms`, `2s`, `10m`, `1h`, `2d` → seconds, more than zero."""
    seconds = parse_duration_or_zero(value, info)
    if seconds <= 0 and isinstance(value, str):
        raise ValueError(f"expected a duration of more than zero, got {shown(value)}")
    return seconds


def parse_duration_or_zero(value: Any, info: ValidationInfo | None) -> float:
    """As `parse_duration`, and `0s` → 0."""
    if _is_from_code(value, info, float, int):
        return float(value)
    number, unit = _split(value, DURATION, "a duration such as 200ms, 2s, 10m, 1h or 2d", "s", "m")
    seconds = number * _DURATION_S[unit]
    if seconds > LONGEST_S:
        raise ValueError(f"expected a duration of at most ten years (3650d), got {shown(value)}")
    return seconds


def parse_size(value: Any, info: ValidationInfo | None) -> int:
    """`25MB`, `512KiB` → bytes, at least one."""
    if _is_from_code(value, info, int):
        return int(value)
    number, unit = _split(value, _SIZE, "a size such as 512KB, 25MB or 1GiB", "MB")
    size_bytes = int(number * _SIZE_BYTES[unit])
    if not 1 <= size_bytes <= LARGEST_BYTES:
        raise ValueError(f"expected a size from 1B to 1024GiB, got {shown(value)}")
    return size_bytes


def parse_rate(value: Any, info: ValidationInfo | None) -> float:
    """`50/s`, `30/m` → a number a second, more than zero."""
    if _is_from_code(value, info, float, int):
        return float(value)
    number, unit = _split(value, RATE, "a rate such as 50/s or 30/m", "/s")
    per_second = number / _DURATION_S[unit]
    if per_second <= 0:
        raise ValueError(f"expected a rate of more than zero, got {shown(value)}")
    return per_second


def parse_share(value: Any, info: ValidationInfo | None) -> float:
    """`99%`, `99.9%` → 0.99, 0.999: more than 0 and less than 1."""
    if _is_from_code(value, info, float):
        return float(value)
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found is not None else 0.0
    if not 0 < share < 1:
        raise ValueError(f"expected a share of more than 0% and less than 100%, such as 99%, got {shown(value)}")
    return share


def whole(least: int, most: int, expected: str) -> Callable[[Any], int]:
    """A parser of whole numbers from `least` to `most`. `expected` describes them in the error."""

    def parse(value: Any) -> int:
        number = value
        if isinstance(value, Expanded) and _WHOLE.fullmatch(value):
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise ValueError(f"expected {expected}, got {shown(value)}")
        return number

    return parse


def parse_flag(value: Any) -> bool:
    """`true` or `false`; YAML 1.1's yes, no, on and off are refused with a suggestion."""
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else ""
    if isinstance(value, Expanded):
        if text in ("true", "false"):
            return text == "true"
        text = ""
    meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(text, "")
    if text in ("true", "false"):
        meant = f"{text} (without quotes, in lower case)"
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
    """The number of bulk processes, or `auto`."""
    if value == "auto":
        return "auto"
    return whole(0, 64, "auto or a number from 0 to 64")(value)


def parse_warm(value: Any) -> int | Literal["auto"]:
    """The number of warm sessions, or `auto`."""
    if value == "auto":
        return "auto"
    return whole(0, 10**9 - 1, "auto or a number of at least 0")(value)


def parse_path(value: Any, info: ValidationInfo | None) -> Path:
    """A path. A relative one is relative to the configuration file's folder."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, got {shown(value)}")
    return in_folder(value, info)


def in_folder(path: str, info: ValidationInfo | None) -> Path:
    """The path relative to the configuration file's folder, where one is being loaded."""
    return Path(path) if info is None or info.context is None else info.context / path


def parse_store(value: Any, info: ValidationInfo | None) -> Path:
    """The store's path: as `parse_path`, but no URL of a database server."""
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"expected the path of a file (SQLite is the only store so far), got {shown(value)}")
    return parse_path(value, info)
