"""Words are found in any script, and the data of the detector is made of the lexicon as it is written."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from relay.mail.codes import lexicon as lex
from relay.mail.codes.lexicon import MOST_CACHED, Lexicon, LexiconData
from relay.mail.codes.words import NOT_CODE, Words
from tools.lexicon_data import compiled

DATA: LexiconData = {
    "languages": ["en", "de", "zh", "vi"],
    "exact": {"code": [[0, 0], [1, 0]], "gift": [[0, 9]], "password": [[0, 11]], "one-time": [[0, 1]]},
    "prefix": {"bestätig": [[1, 2]]},
    "suffix": {"code": [[1, 0]]},
    "inside": {"einmal": [[1, 1]]},
    "phrase": {"mật mã": [[3, 0]]},
    "anywhere": {"验证码": [[2, 0], [2, 2]]},
}
LEXICON = Lexicon(DATA)

FOUND = [
    ("Your CODE here", [("CODE", lex.CODE)]),
    ("codes", []),
    ("Sicherheitscode", [("Sicherheitscode", lex.CODE)]),
    ("bestätigen", [("bestätigen", lex.VERIFY)]),
    ("Das Einmalpasswort", [("Einmalpasswort", lex.ONCE)]),
    ("Nhập mật mã này", [("mật mã", lex.CODE)]),
    ("您的验证码是", [("验证码", lex.CODE | lex.VERIFY)]),
    ("ẞ Straße code", [("code", lex.CODE)]),
    ("İ code", [("code", lex.CODE)]),
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_words_are_found_where_they_stand(text: str, expected: list[tuple[str, int]]) -> None:
    assert [(text[hit.start : hit.end], hit.meanings) for hit in LEXICON.hits(text)] == expected


def test_languages_are_named() -> None:
    (hit,) = LEXICON.hits("code")
    assert LEXICON.names(hit.languages) == ["en", "de"]


def test_the_words_that_are_kept_are_bounded_and_new_ones_are_still_known() -> None:
    lexicon = Lexicon(DATA)
    for number in range(0, 2 * MOST_CACHED, 500):
        text = " ".join(f"w{chr(97 + at % 26)}{'abcdefghij'[at // 26 % 10] * (1 + at // 260)}" for at in range(500))
        lexicon.hits(text.replace("w", "".join(chr(97 + int(digit)) for digit in str(number))))
    assert len(lexicon._known) <= MOST_CACHED
    assert [hit.meanings for hit in lexicon.hits("Bestätigung des Sicherheitscode")] == [lex.VERIFY, lex.CODE]


def test_neighbours_change_what_a_word_means() -> None:
    words = Words("code", ["your gift code", "one-time password", "password", "x" * 2_000, "gift code"], LEXICON)
    assert words.hits(0)[0].meanings == lex.CODE
    assert words.meanings(1) == lex.GIFT | NOT_CODE
    assert words.meanings(2) == lex.ONCE | lex.CODE
    assert words.meanings(3) == lex.PASSWORD
    assert words.meanings(5) == lex.GIFT | NOT_CODE  # beyond what is searched at once
    at = words.offset(1)
    assert [words.texts[1][hit.start - at : hit.end - at] for hit in words.hits(1)] == ["gift", "code"]
    assert words.meanings(0) == words.meanings(99) == 0


def test_the_data_holds_the_lexicon_as_it_is_written() -> None:
    written = compiled(Path(__file__).parents[3] / "tools" / "lexicon.yaml")
    data = json.loads(resources.files("relay.mail.codes").joinpath("detector.json").read_text("utf-8"))
    assert data["lexicon"] == written


@pytest.mark.parametrize("entry", ["*code", "co*de", "==x"])
def test_an_entry_that_means_nothing_is_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "lexicon.yaml"
    path.write_text(f'en:\n  code: "{entry}"\n')
    with pytest.raises(ValueError, match="not an entry"):
        compiled(path)
