"""The configuration's JSON Schema: it takes what the relay takes, and refuses what has unknown keys or wrong types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from relay.__main__ import main
from tools.generate import schema
from tools.generate.descriptions import SECTIONS
from tools.generate.forms import _PARSERS, TEXTS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "relay/config/schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
GOOD = sorted([*ROOT.glob("tests/configs/good/*.yaml"), *ROOT.glob("config/*.yaml")])
BAD = sorted(ROOT.glob("tests/configs/bad/*.yaml"))
OF_TYPES = re.compile(
    r"unknown key|missing: this key is required"
    r"|expected (?:a text|a list|a mapping|true or false|a number|a port|a priority|auto or|a duration such|a size such"
    r"|a rate such|a share|a limit such|an address such|an IP network|the name of a header|a path|a mail address|none, "
    r"|otp or |resend or |password or |smtp, )"
)
"""errors that the schema sees, too, unless the value comes from the environment"""
BEYOND = frozenset({"capital-boolean", "octal-count", "network-too-wide", "port-too-large"})
"""Other readers of YAML have more booleans and integers than the relay. How large a number in a text is, no pattern
sees."""


class Yaml12(yaml.SafeLoader):
    """As editors read YAML (1.2, core schema): `no` and dates are texts."""


Yaml12.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


def read(text: str | bytes) -> Any:
    return yaml.load(text, Loader=Yaml12)


def is_of_types(error: str) -> bool:
    return OF_TYPES.search(error) is not None and "the value of ${" not in error


def wrongly_typed() -> Iterator[Path]:
    """The bad configurations that are YAML, and whose mistake is a key or a type."""
    for file in BAD:
        text = file.read_bytes().decode("utf-8", "replace")
        if file.stem not in BEYOND and any(map(is_of_types, re.findall(r"^# expect: (.*)", text, re.MULTILINE))):
            try:
                read(file.read_bytes())
            except (yaml.YAMLError, UnicodeDecodeError):
                continue
            yield file


def test_it_is_a_schema_of_2020_12() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_what_the_relay_loads_is_valid(file: Path) -> None:
    assert [one.message for one in VALIDATOR.iter_errors(read(file.read_bytes()))] == []


def test_there_are_many_wrong_types() -> None:
    assert len(list(wrongly_typed())) > 60


@pytest.mark.parametrize("file", list(wrongly_typed()), ids=lambda file: file.stem)
def test_what_has_unknown_keys_or_wrong_types_is_invalid(file: Path) -> None:
    assert not VALIDATOR.is_valid(read(file.read_bytes()))


def of_definition(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


TEXTS_TO_TRY = (
    "200ms", "2s", "1.5h", "0s", "0ms", "2d", "10", "10 m", "10M", "-1s", "25MB", "512 KiB", "1GB", "0B", "1kb",
    "50/s", "30/m", "0/s", "1.5/s", "50", "50/10s", "99%", "99.9 %", "0%", "100", "5/1h", "20/10m", "5/0s", "5/h",
    "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::ffff:0:0/96", "example.com", "10.0.0.0/",
    "127.0.0.1:2525", "[::1]:25", "localhost:0", "relay.example.com.:587", "unix:/run/a b.sock", "unix:r.sock",
    "systemd:smtp", "systemd:", "2525", "::1:25", "a_b.example:1", "unix:", "/a/b", "a", "",
    "Message-ID", "X Tag", "X:", "a@example.com", "a.b+c@example.com", "a@", "@example.com", "relay.db",
    "postgresql://u@h/d", "<>", "*@example.com", "/code/i", "/code/x", "/code", "//",
)  # fmt: skip


@pytest.mark.parametrize("parser", _PARSERS, ids=lambda parser: parser.__name__)
def test_a_text_that_the_relay_takes_has_a_form_that_the_schema_takes(parser: Callable[..., object]) -> None:
    needs_info = parser.__code__.co_argcount == 2
    taken = set()
    for text in TEXTS_TO_TRY:
        try:
            parser(text, None) if needs_info else parser(text)
        except ValueError:
            continue
        taken.add(text)
    assert taken
    validator = of_definition(_PARSERS[parser])
    assert {text for text in taken if not validator.is_valid(text)} == set()


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "duration": {"0s", "10", "10 m", "10M", "-1s", ""},
        "duration_or_zero": {"10", "-1s"},
        "size": {"0B", "1kb", "10"},
        "rate": {"0/s", "50", "50/10s"},
        "share": {"0%", "100"},
        "limit": {"50", "5/h", "50/s"},
        "budget": {"50"},
        "network": {"example.com", "10.0.0.0/"},
        "address": {"2525", "systemd:", "unix:", "example.com"},
        "header_name": {"X Tag", "X:", ""},
        "mail_address": {"a@", "@example.com", "a"},
        "path": {""},
        "store": {"", "postgresql://u@h/d"},
        "pattern": {"/code/x", "/code", "//"},
    }.items(),
)
def test_a_text_of_another_form_is_invalid(name: str, texts: set[str]) -> None:
    validator = of_definition(name)
    assert {text for text in texts if validator.is_valid(text)} == set()


def test_every_form_is_tried_both_ways() -> None:
    assert {*_PARSERS.values(), "pattern"} == set(TEXTS)


def properties() -> Iterator[Any]:
    """Every key of every section, but for those that hold nothing but sections."""
    for title, section in SECTIONS.items():
        mapping = SCHEMA if title == "The whole file" else SCHEMA["$defs"][section.__name__]
        for key, form in mapping["properties"].items():
            yield pytest.param(form, id=f"{title}: {key}")


def allows(form: dict[str, Any], value: object) -> bool:
    return Draft202012Validator({**form, "$defs": SCHEMA["$defs"]}).is_valid(value)


@pytest.mark.parametrize("form", list(properties()))
def test_a_value_may_come_from_the_environment(form: dict[str, Any]) -> None:
    takes_values = any(
        allows(form, value) for value in ("x", "1s", "1MB", "1/s", "1/1s", "1%", "a@b.c", "::1", 1, True)
    )
    takes_addresses = allows(form, "127.0.0.1:25")
    for text in ("${NAME}", "${NAME:-default}"):
        assert allows(form, text) == (takes_values or takes_addresses or "enum" in json.dumps(form))


@pytest.mark.parametrize("form", list(properties()))
def test_a_default_is_valid_and_every_key_is_described(form: dict[str, Any]) -> None:
    assert re.fullmatch(r"\S.*[.]", form["description"])
    if "default" in form:
        assert allows(form, form["default"])


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA == schema.schema()
