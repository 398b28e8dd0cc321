"""The store's path without the full loading: the same path, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.config.partial import find_store

REST = """
listen: [{address: 127.0.0.1:2525}]
upstreams: {sink: {host: 127.0.0.1, port: 1, tls: none}}
lanes: {bulk: {upstreams: [sink]}}
"""
ENVIRON = {"STATE": "elsewhere", "EMPTY": ""}


def written(folder: Path, text: str) -> Path:
    """A configuration with that text, beside a store file at each path of these tests."""
    for name in ("data/relay.db", "mail.db", "elsewhere/mail.db", "1"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    config = folder / "relay.yaml"
    config.write_text(text)
    return config


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("", "data/relay.db"),
        ("store: mail.db", "mail.db"),
        ("store: ./elsewhere/../mail.db", "elsewhere/../mail.db"),
        ('store: "mail.db"', "mail.db"),
        ("store: ${STATE}/mail.db", "elsewhere/mail.db"),
        ("store: ${STATE:-nowhere}/mail.db", "elsewhere/mail.db"),
        ("store: ${NOWHERE:-elsewhere}/mail.db", "elsewhere/mail.db"),
    ],
)
def test_the_store_is_where_the_full_loading_has_it(tmp_path: Path, line: str, place: str) -> None:
    config = written(tmp_path, f"{line}\n{REST}")
    assert find_store(config, ENVIRON) == tmp_path / place == load(config, ENVIRON).config.store


def test_an_absolute_place_stays_as_it_is_and_a_relative_file_s_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, f"store: {tmp_path}/elsewhere/mail.db")
    monkeypatch.chdir(tmp_path)
    assert find_store(Path("relay.yaml"), {}) == tmp_path / "elsewhere/mail.db"
    Path("relay.yaml").write_text("store: mail.db")
    assert find_store(Path("relay.yaml"), {}) == tmp_path / "mail.db"


@pytest.mark.parametrize(
    "mistake",
    ["lanes: {otp: {expires: 10}}", "upstreams: {a: {password: '${UNSET}'}}", "nonsense: 1", "lanes: 1\nlanes: 2"],
)
def test_a_mistake_elsewhere_hides_no_store(tmp_path: Path, mistake: str) -> None:
    config = written(tmp_path, f"store: mail.db\n{mistake}\n")
    with pytest.raises(ConfigErrors):
        load(config, ENVIRON)
    assert find_store(config, ENVIRON) == tmp_path / "mail.db"


@pytest.mark.parametrize(
    "text",
    [
        "store: 1",
        "store:",
        "store: [mail.db]",
        "store: {path: mail.db}",
        "store: ${UNSET}/mail.db",
        "store: ${EMPTY}",
        "store: ${mail.db",
        "store: !path mail.db",
        "store: &here mail.db",
        "store: mail.db\nstore: elsewhere/mail.db",
        "store: postgresql://db.example.com/mail",
        "store: mail.db\nlanes: [",
        "store: mail.db\n--- {}",
        "[store, mail.db]",
        "",
    ],
)
def test_an_unclear_store_is_left_to_the_full_loading_which_reports_why(tmp_path: Path, text: str) -> None:
    config = written(tmp_path, text)
    assert find_store(config, ENVIRON) is None
    with pytest.raises(ConfigErrors):
        load(config, ENVIRON)


def test_without_a_store_file_a_mistake_may_be_the_reason(tmp_path: Path) -> None:
    config = written(tmp_path, f"stroe: mail.db\n{REST}")
    (tmp_path / "data/relay.db").unlink()
    assert find_store(config, ENVIRON) is None
    with pytest.raises(ConfigErrors, match="did you mean store"):
        load(config, ENVIRON)


@pytest.mark.parametrize("name", ["relay.yaml", "minimal.yaml"])
def test_the_shipped_configurations_have_their_store_found(tmp_path: Path, name: str) -> None:
    text = (Path(__file__).parents[2] / "config" / name).read_text()
    config = written(tmp_path, text)
    assert find_store(config, {}) == tmp_path / "data/relay.db"


def test_a_configuration_that_is_not_there_names_no_store(tmp_path: Path) -> None:
    assert find_store(tmp_path / "relay.yaml", ENVIRON) is None
    assert find_store(tmp_path, ENVIRON) is None
