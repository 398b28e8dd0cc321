"""Third-party programs that check what is shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 50.0
_PLACES = (ROOT / ".venv/bin", ROOT / ".venv/npm/bin")
"""where CI puts programs that Debian doesn't have"""


def program(name: str, *arguments: str | Path, given: str = "", environment: dict[str, str] | None = None) -> str:
    """What the program wrote, both outputs together. Skips where it isn't installed; fails where it fails."""
    path = shutil.which(name, path=os.pathsep.join([*map(str, _PLACES), os.environ.get("PATH", os.defpath)]))
    if path is None:
        pytest.skip(f"no {name}")
    ended = subprocess.run(
        [path, *map(str, arguments)],
        input=given,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ended.returncode == 0, f"{name}: exit {ended.returncode}\n{ended.stdout}"
    return ended.stdout
