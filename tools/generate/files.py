"""Every generated file, with its text as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.generate import keys, schema

ROOT = Path(__file__).parents[2]


def generated() -> Mapping[Path, str]:
    """The files by path."""
    return {
        ROOT / "relay/config/schema.json": schema.text(),
        ROOT / "docs/keys.md": keys.text(),
        ROOT / "relay/setup/otp-relay.service": (ROOT / "systemd/otp-relay.service").read_text(),
    }
