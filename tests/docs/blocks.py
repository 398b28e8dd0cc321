"""The fenced blocks of the documents, and the comments before them.

A comment right before a block says what a test does with it: `<!-- run: NAME -->`, `<!-- not run: WHY -->`. GitHub
shows neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("systemd/*.md"), *ROOT.glob("deploy/*.md")])

_MARK = re.compile(r"<!-- (run|not run): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands (the line of its fence), its language and text, and what its comment says."""

    document: Path
    line: int
    language: str
    text: str
    run: str | None = None
    not_run: str | None = None
    heading: str = ""

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> Iterator[Block]:
    """All fenced blocks of a document, in their order."""
    lines = document.read_text().splitlines()
    heading, mark, at = "", None, 0
    while at < len(lines):
        line = lines[at]
        opened = re.fullmatch(r"( *)```(\w*)", line)
        if opened is None:
            if found := re.fullmatch(r"#+ (.+)", line):
                heading = found[1]
            mark = _MARK.fullmatch(line.strip()) or (mark if not line.strip() else None)
            at += 1
            continue
        end = lines.index(f"{opened[1]}```", at + 1)
        indent = len(opened[1])
        text = "".join(f"{one[indent:]}\n" for one in lines[at + 1 : end])
        said = {mark[1].replace(" ", "_"): mark[2]} if mark else {}
        yield Block(document, at + 1, opened[2], text, said.get("run"), said.get("not_run"), heading)
        mark, at = None, end + 1


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all documents in these languages."""
    return [one for document in DOCUMENTS for one in blocks_of(document) if one.language in languages]


def marked(document: Path) -> dict[str, Block]:
    """The blocks of a document that a test runs, by the name in their comment."""
    found = [one for one in blocks_of(document) if one.run is not None]
    named = {one.run: one for one in found if one.run is not None}
    assert len(named) == len(found), "two blocks have one name"
    return named
