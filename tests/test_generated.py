"""Files that are made from others are up to date. `python -m tools.generate` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.generate.files import ROOT, generated

FILES = generated()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == FILES[path], "run: python -m tools.generate"
