"""Each recipe of the cookbook: its configuration loads, and `explain` says about its mail what the page shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.__main__ import main
from tests.docs.blocks import ROOT, Block, blocks_of
from tests.docs.commands import invocations
from tests.docs.configs import Files, whole

PAGE = ROOT / "docs/cookbook.md"
BLOCKS = [one for one in blocks_of(PAGE) if one.run]
BASE: dict[str, Any] = yaml.safe_load(BLOCKS[0].text)


@dataclass(frozen=True)
class Recipe:
    title: str
    config: Block
    mail: Block
    explain: Block


def recipes() -> list[Recipe]:
    found = []
    for at in range(1, len(BLOCKS), 3):
        three = BLOCKS[at : at + 3]
        assert [one.run for one in three] == ["config", "mail", "explain"], three[0].place
        assert len({one.heading for one in three}) == 1, three[0].place
        found.append(Recipe(three[0].heading, *three))
    return found


RECIPES = recipes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("cookbook"))


def is_shown_by(shown: str, line: str) -> bool:
    """Whether a line of the page is this line of the output; `...` at its end stands for the rest."""
    return line.startswith(shown.removesuffix("...")) if shown.endswith(" ...") else line == shown


def missing(shown: list[str], lines: list[str]) -> list[str]:
    """The first of the page's lines that the output doesn't have, in its order, and all behind it."""
    rest, waiting = iter(lines), list(shown)
    while waiting and any(is_shown_by(waiting[0], line) for line in rest):
        waiting.pop(0)
    return waiting


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.title)
def test_a_recipe_does_what_the_page_says(
    recipe: Recipe, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files.folder)
    monkeypatch.setenv("OTP_RELAY_CONFIG", "relay.yaml")
    for name in ("SES_PASSWORD", "POSTMARK_TOKEN"):
        monkeypatch.setenv(name, "value")
    files.load(whole({**BASE, **yaml.safe_load(recipe.config.text)}))
    Path("mail.eml").write_text(recipe.mail.text)

    command, *shown = recipe.explain.text.splitlines()
    (arguments,) = invocations(recipe.explain)
    assert arguments[0] == "explain", command
    assert main(arguments) == 0
    assert shown, "the page shows no answer"
    assert missing(shown, capsys.readouterr().out.splitlines()) == []


def test_the_page_lists_all_its_recipes() -> None:
    listed = set(re.findall(r"\]\(#([\w-]+)\)", PAGE.read_text().split("\n## ")[0]))
    slugs = {re.sub(r"[^\w -]", "", one.title.lower()).replace(" ", "-") for one in RECIPES}
    assert listed == slugs


def test_a_line_that_explain_does_not_say_is_noticed() -> None:
    said = ["lane       otp (rule codes)", "upstreams  ses, postmark"]
    assert missing(["lane       otp (rule codes)"], said) == []
    assert missing(["upstreams  ses ..."], said) == ["upstreams  ses ..."]
    assert missing(["upstreams  ses, postmark", "lane       otp ..."], said) == ["lane       otp ..."]
