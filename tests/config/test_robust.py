"""Any file is loaded or refused with errors, which show no secret."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.config.document import read
from relay.config.errors import ConfigErrors
from relay.config.load import load
from tests.config.conftest import ENVIRON, LoadText

TEXT = """\
listen: [{address: 127.0.0.1:2525, lane: otp}]
http: {address: 127.0.0.1:8025, token: hunter2-token}
upstreams:
  mx: {host: smtp.example.com, username: hunter2-user, password: "hunter2-password"}
  es: {preset: postmark, password: "${SECRET}"}
lanes:
  otp: {upstreams: [mx, es], expires: 10m, retry: [1s, 2s]}
  bulk: {upstreams: mx, rate: 2/s}
rules:
  - {name: a, match: {sender: "*@example.com", subject: "/x/i", client: 10.0.0.0/8}, lane: otp}
dkim: []
"""
# Pieces that change the meaning of a YAML line.
PIECES = st.sampled_from(
    [*"\t\n :{}[]&*!|>'\"%@`#,?-~", "- ", ": ", "\n  ", "${", "}", "<<", "---\n", "null", "no", "1", "\x00"]
)


def loaded(load_text: LoadText, content: str | bytes) -> str:
    """The text of the errors, or of what was loaded."""
    try:
        return repr(load_text(content))
    except ConfigErrors as errors:
        return str(errors)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 6), PIECES), min_size=1, max_size=3))
def test_a_file_with_typing_mistakes_is_loaded_or_refused_and_shows_no_secret(
    load_text: LoadText, edits: list[tuple[int, int, str]]
) -> None:
    text = TEXT
    for at, cut, piece in edits:
        text = text[:at] + piece + text[at + cut :]
    said = loaded(load_text, text)
    # A typing mistake inside a secret leaves a part of it, which no message may show either.
    for part in ("hunter2-token", "hunter2-password", "hunter2-from-the-environment"):
        assert part not in said


def test_a_secret_that_ran_together_with_the_value_before_it_is_not_shown(load_text: LoadText) -> None:
    text = TEXT.replace("8025, token: hunter2-token", "8\n \n hunter2-token")
    assert "got '127.0.0.1:8'..." in loaded(load_text, text)


def test_a_default_in_the_file_is_shown_and_a_value_of_the_environment_is_not(load_text: LoadText) -> None:
    text = TEXT.replace('"${SECRET}"', '"${SECRET}", ca_file: "${FOLDER:-tls}/ca.pem"')
    assert "no such file" in (said := loaded(load_text, text))
    assert "tls/ca.pem" in said
    assert "FOLDER" not in said


@pytest.mark.parametrize("slip", [",!token: hunter2-token", ", toke, hunter2-token", ", !token: hunter2-token # :\n"])
def test_a_secret_that_lost_its_colon_is_not_taken_for_a_key(load_text: LoadText, slip: str) -> None:
    text = TEXT.replace(", token: hunter2-token", slip)
    with pytest.raises(ConfigErrors) as caught:
        load_text(text)
    assert "hunter2" not in str(caught.value)
    assert "http: expected key: value, got a word without a colon" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    document = read(content, ENVIRON)
    assert document.readable or document.diagnostics


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "- " * 100_000,
        "{" * 100_000,
        "&a " * 10_000,
        "? " * 50_000,
        "a: '" + "x" * 900_000,
        "k: 1\n" * 20_000,
    ],
    ids=["brackets", "dashes", "braces", "anchors", "keys", "text", "duplicates"],
)
def test_a_huge_file_is_refused(load_text: LoadText, text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_text(text)
    assert len(caught.value.errors) <= 101


@pytest.mark.parametrize(("path", "message"), [("nothing.yaml", "no such file"), (".", "this is a folder")])
def test_a_file_that_cannot_be_read_is_named(folder: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(folder / path, {})
    assert str(caught.value).startswith(str(folder / path).rstrip("/."))
    assert message in str(caught.value)


def test_a_relative_path_of_the_file_still_gives_absolute_paths(
    load_text: LoadText, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(ConfigErrors):
        load_text("upstreams: {mx: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: mx}}\n")
    monkeypatch.chdir(folder.parent)
    config = load(Path(folder.name) / "relay.yaml", {}, machine_name=lambda: "machine").config
    assert config.store == folder / "data/relay.db"
