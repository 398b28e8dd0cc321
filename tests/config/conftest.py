from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config.load import load
from relay.config.model import Loaded
from tests.config.keyfiles import write_keys

ENVIRON = {"EMPTY": "", "SECRET": "hunter2-from-the-environment", "PORT": "2526"}
"""Every secret of the fixtures begins with hunter2."""

LoadText = Callable[..., Loaded]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `keys`, for configurations that name files."""
    folder = tmp_path_factory.mktemp("configs")
    write_keys(folder / "keys")
    return folder


@pytest.fixture
def load_text(folder: Path) -> LoadText:
    """Loads a configuration given as text, or as the bytes of a file."""

    def from_text(text: str | bytes, environ: dict[str, str] | None = None) -> Loaded:
        path = folder / "relay.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path, ENVIRON if environ is None else environ, machine_name=lambda: "machine.example.com")

    return from_text
