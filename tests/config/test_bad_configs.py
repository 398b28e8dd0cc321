"""Every file under `tests/configs/bad` is refused with exactly the errors that its first lines expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.errors import ConfigErrors
from tests.config.conftest import LoadText

BAD = Path(__file__).parent.parent / "configs" / "bad"
FILES = sorted(BAD.glob("*.yaml"))


def expected(content: bytes, folder: Path) -> list[str]:
    text = content.decode("utf-16" if content.startswith(b"\xff\xfe") else "utf-8", "replace")
    lines = [line.removeprefix("# expect: ") for line in text.splitlines() if line.startswith("# expect: ")]
    return [line.replace("FOLDER", str(folder)) for line in lines]


def refused(content: bytes, load_text: LoadText) -> ConfigErrors:
    with pytest.raises(ConfigErrors) as caught:
        load_text(content)
    return caught.value


def test_there_are_many_mistakes_to_make() -> None:
    assert len(FILES) >= 200


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mistake_is_reported_with_its_place_its_key_and_what_was_expected(
    file: Path, folder: Path, load_text: LoadText
) -> None:
    content = file.read_bytes()
    errors = refused(content, load_text)
    told = [str(error).removeprefix(f"{folder}/relay.yaml:") for error in errors.errors]
    assert told == expected(content, folder)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_message_shows_a_secret_or_breaks_its_line(file: Path, load_text: LoadText) -> None:
    errors = refused(file.read_bytes(), load_text)
    assert "hunter2" not in str(errors)
    for error in errors.errors:
        assert str(error).isprintable()


def test_an_empty_file_says_so(load_text: LoadText) -> None:
    assert "got nothing but comments" in str(refused(b"", load_text))


def test_a_file_too_large_is_refused_unread(load_text: LoadText) -> None:
    assert "larger than 1024 KiB" in str(refused(b"#" * (1 << 20) + b"#", load_text))


def test_a_flood_of_mistakes_is_cut_short(load_text: LoadText) -> None:
    lines = "".join(f"key{n}: 1\n" for n in range(500))
    errors = refused(lines.encode(), load_text).errors
    assert len(errors) == 101
    assert errors[-1].message == "and 402 more from here on"
