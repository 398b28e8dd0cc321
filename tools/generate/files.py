"""Every generated file, with its text as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.cli.completion import SCRIPTS
from tools.generate import bash, fish, keys, manpage, openapi, schema, zsh

ROOT = Path(__file__).parents[2]


def generated() -> Mapping[Path, str]:
    """The files by path."""
    scripts = {"bash": bash.text, "zsh": zsh.text, "fish": fish.text}
    return {
        ROOT / "relay/config/schema.json": schema.text(),
        ROOT / "relay/web/openapi.json": openapi.text(),
        ROOT / "docs/keys.md": keys.text(),
        ROOT / "relay/setup/otp-relay.service": (ROOT / "systemd/otp-relay.service").read_text(),
        **{ROOT / "relay/cli/completions" / SCRIPTS[shell]: text() for shell, text in scripts.items()},
        ROOT / "relay/cli/man/otp-relay.1": manpage.text(),
    }
