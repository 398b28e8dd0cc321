"""What the project says about itself holds: the README and the documents. tests/packaging has what is shipped."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import relay
from relay.__main__ import parser
from relay.config import fields, model
from relay.mail.lint.rules import RULES
from relay.observe.gauges import Snapshot
from relay.observe.metrics import Metrics
from relay.observe.pressure import QueueFill
from relay.providers.apis.registry import NAMES, api_named
from tests.support.order import LONGEST
from tools.generate.descriptions import SECTIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("systemd/*.md")])


def commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(subparsers.choices)


def pasted_lines() -> list[str]:
    """The README's shell lines that set up everything by themselves."""
    return [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]


def table_rows(text: str) -> Iterator[tuple[str, ...]]:
    """The cells of each row of the tables, without heads and rules."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        is_head = lines[at + 1 : at + 2] and re.fullmatch(r"[|\- ]+", lines[at + 1])
        if line.startswith("|") and not is_head and not re.fullmatch(r"[|\- ]+", line):
            yield tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of any depth."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[1]


def test_the_readme_has_one_line_for_the_demo_and_one_for_the_tests() -> None:
    demo, tests = pasted_lines()
    assert demo.endswith(" && .venv/bin/otp-relay demo")
    assert tests.endswith(" && ./check")


def test_ci_runs_the_readmes_test_line_and_nothing_after_it() -> None:
    steps = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line]
    assert steps[-1] == pasted_lines()[1]


@pytest.mark.parametrize("script", ["check", ".ci/run"])
def test_a_script_can_be_executed(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111 == 0o111


def test_the_reference_lists_exactly_the_commands_there_are() -> None:
    listed = {row[0].strip("`").split()[0] for row in table_rows(section(REFERENCE, "Commands"))}
    assert listed == set(commands())


def test_the_reference_names_the_commands_that_have_json() -> None:
    named = re.search(r"^- ((?:`[\w-]+`|,|and|\s)+) take\s+`--json`", section(REFERENCE, "Commands"), re.MULTILINE)
    assert named is not None
    able = {
        name for name, one in commands().items() if any("--json" in action.option_strings for action in one._actions)
    }
    assert set(re.findall(r"`([\w-]+)`", named[1])) == able


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_fits_in_100_columns(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), 1)
    assert not [f"line {number}: {len(line)}" for number, line in lines if len(line) > 100]


def configuration_rows(title: str) -> dict[str, tuple[str, ...]]:
    rows = table_rows(section((ROOT / "docs/configuration.md").read_text(), title))
    return {row[0].strip("`"): row for row in rows}


def test_every_section_of_the_configuration_has_its_table() -> None:
    sections = {one for one in vars(model).values() if isinstance(one, type) and issubclass(one, fields.Section)}
    assert set(SECTIONS.values()) == sections - {fields.Section}


@pytest.mark.parametrize(("title", "kind"), SECTIONS.items(), ids=list(SECTIONS))
def test_a_table_has_exactly_the_keys_of_its_section(title: str, kind: type[fields.Section]) -> None:
    keys = {field.alias or name for name, field in kind.model_fields.items()}
    assert set(configuration_rows(title)) == keys


def plain_fields() -> Iterator[Any]:
    """Fields whose default is one value that the file could say; computed ones and sections are told in words."""
    for title, kind in SECTIONS.items():
        for name, field in kind.model_fields.items():
            told = configuration_rows(title)[field.alias or name][2]
            if re.fullmatch(r"`[^`]+`", told) and field.default is not PydanticUndefined:
                yield pytest.param(field, told.strip("`"), id=f"{title}: {name}")


@pytest.mark.parametrize(("field", "told"), list(plain_fields()))
def test_a_documented_default_is_the_models(field: FieldInfo, told: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    assert adapter.validate_python(yaml.safe_load(told), context=Path()) == field.default


def test_the_reference_lists_exactly_the_metrics_there_are() -> None:
    fill = QueueFill(0, 0, 0, 0)
    snapshot = Snapshot(now=0.0, queue=(), lanes=("otp",), states=("queued",), fill=fill)
    metrics = Metrics()
    metrics.render(snapshot)
    families: list[Metric] = list(metrics.registry.collect())
    known = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    assert {row[0].strip("`") for row in table_rows(section(REFERENCE, "Metrics"))} == known


def test_the_apis_are_listed_with_their_forms_and_limits() -> None:
    rows = table_rows(section((ROOT / "docs/apis.md").read_text(), "What is carried"))
    times = {0.0: "ambiguous", 900.0: "asked again for 15 minutes", 86_400.0: "asked again for 24 hours"}
    apis = {name: api_named(name) for name in NAMES}
    assert {row[0].strip("`"): row[1:] for row in rows if row[0].startswith("`")} == {
        name: (
            {"raw": "raw", "json": "JSON"}[api.form],
            f"{api.recipients:,}",
            f"{api.max_bytes // 1_000_000} MB",
            times[api.idempotent_s],
        )
        for name, api in apis.items()
    }


def test_the_rules_of_lint_are_listed_with_their_levels() -> None:
    rows = table_rows(section((ROOT / "docs/detector.md").read_text(), "Lint"))
    assert {row[0].strip("`"): row[1] for row in rows} == {name: rule.level for name, rule in RULES.items()}


def test_the_version_is_told_once_and_has_its_entry_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == relay.__version__  # type: ignore[index]


def test_each_test_file_that_begins_first_exists() -> None:
    assert [file for file in LONGEST if not (ROOT / file).exists()] == []
