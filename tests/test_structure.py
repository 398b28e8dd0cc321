"""The shape of the code: how long a file, a function and a class may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "relay").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, CLASS_METHODS = 350, 50, 20
EXCEPTIONS: frozenset[str] = frozenset()
"""`FILE` or `FILE:NAME`; docs/decisions.md has the reason for each."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_large(path: Path) -> Iterator[str]:
    """The file, and the functions and classes in it, that are past their limit."""
    text, name = path.read_text(), str(path.relative_to(ROOT))
    if text.count("\n") > FILE_LINES:
        yield name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES:
            yield f"{name}:{node.name}"
        if isinstance(node, ast.ClassDef) and sum(isinstance(one, Function) for one in node.body) > CLASS_METHODS:
            yield f"{name}:{node.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_what_is_in_it_stay_small(path: Path) -> None:
    assert not set(too_large(path)) - EXCEPTIONS


def test_every_exception_has_its_reason() -> None:
    found = {one for path in FILES for one in too_large(path)}
    decisions = (ROOT / "docs/decisions.md").read_text()
    assert found >= EXCEPTIONS
    assert all(one in decisions for one in EXCEPTIONS)
