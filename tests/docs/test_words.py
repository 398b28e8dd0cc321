"""What the documents name exists: metrics, events of the log; and a word stands once in the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT
from tests.test_project import REFERENCE, section, table_rows

METRICS = {row[0].strip("`") for row in table_rows(section(REFERENCE, "Metrics"))}
GLOSSARY = ROOT / "docs/glossary.md"
NO_METRIC = {"relay_id"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: str(one.relative_to(ROOT)))
def test_a_metric_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"\brelay_[a-z_]+\b", document.read_text())) - NO_METRIC
    assert {
        one for one in named if one not in METRICS and re.sub(r"_(bucket|sum|count)$", "", one) not in METRICS
    } == set()


def test_the_glossary_is_sorted_and_has_no_word_twice() -> None:
    words = [row[0] for row in table_rows(GLOSSARY.read_text())]
    assert words == sorted(set(words), key=str.lower)


@pytest.mark.parametrize("name", ["start", "apps", "cookbook", "late", "two-relays", "security", "glossary"])
def test_a_page_begins_with_what_it_is_for(name: str) -> None:
    title, _, first = (ROOT / f"docs/{name}.md").read_text().split("\n")[:3]
    assert title.startswith("# ")
    assert first, "a sentence follows the title"
    assert not first.startswith(("#", "|", "-", "<"))
