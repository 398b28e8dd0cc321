"""JSON that is read piece by piece: the same values as the library's, and no long stretch of work without a pause."""

from __future__ import annotations

import base64
import gc
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.compose import NotComposable
from relay.web import paced_json
from relay.web.letter import TooMany, Unreadable, letter_of
from relay.web.paced_json import MAX_DEPTH, BadJson, RepeatedKey, TooManyValues, read_json

LARGE = 2_000_000
WITHOUT_PAUSE_S = 0.04
"""of this thread's own time, so that a busy machine changes little; 910 ms were found for a quoted name"""
SIMPLE = {"from": "a@example.com", "to": "b@example.net", "text": "x"}


def paced(body: bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paced_json, "SMALL_BYTES", -1)
        patch.setattr(paced_json, "DECODED_AT_ONCE", 3)
        return read_json(body, lambda: None)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_a_document_has_the_same_value_for_both_readers(value: object, ascii_only: bool, indent: int | str) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if not ascii_only and any("\ud800" <= char <= "\udfff" for char in text):
        return
    assert paced(text.encode()) == read_json(text.encode(), lambda: None) == json.loads(text)


@given(st.text(st.sampled_from('{}[]:,"\\/ \n\r\t\0aäu0d83Deb1.-+eEtrufalsn日😀NI'), max_size=40))
def test_both_readers_refuse_the_same(text: str) -> None:
    for body in (text.encode(), f'"{text}"'.encode(), f'["\\ud83d{text}", {text}]'.encode()):
        found: list[object] = []
        for read in (paced, lambda body: read_json(body, lambda: None)):
            try:
                found.append(json.dumps(read(body)))
            except (BadJson, RepeatedKey) as error:
                found.append(type(error))
        assert found[0] == found[1]


BAD = [
    "", " ", "{", "[1", "[1,]", '{"a":1,}', '{"a" 1}', "{a: 1}", "[1 2]", "1 2", "01", "+1", "1.", ".5", "1e", "-",
    "nul", "truefalse", "NaN", "Infinity", "-Infinity", '"a', '"a\n"', '"\\x"', '"\\u12"', '"a\\"', "'a'", "\ufeff{}",
    "[" * 60 + "]" * 60,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        paced(text.encode())


@pytest.mark.parametrize("body", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b'{"a":"\xe6\x97'])
def test_what_is_no_utf8_is_refused(body: bytes) -> None:
    for read in (paced, lambda body: read_json(body, lambda: None)):
        with pytest.raises(BadJson):
            read(body)


def test_values_keys_and_depth_are_bounded() -> None:
    with pytest.raises(TooManyValues):
        read_json(json.dumps([0] * paced_json.MAX_VALUES).encode(), lambda: None)
    with pytest.raises(RepeatedKey):
        paced(b'{"a": 1, "\\u0061": 2}')
    assert paced(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None


HOSTILE: dict[str, dict[str, Any]] = {
    "a file": {"attachments": [{"filename": "x", "content": base64.b64encode(bytes(LARGE)).decode()}]},
    "one line": {"text": "x" * LARGE},
    "line ends": {"text": "\n" * LARGE},
    "carriage returns": {"text": "\r" * LARGE},
    "escapes": {"text": "\u65e5" * (LARGE // 6)},
    "a quoted name": {"from": f'"{"x" * LARGE}" <a@example.com>'},
    "a long subject": {"subject": "x " * (LARGE // 2)},
    "many addresses": {"headers": {"Cc": "ä <a@example.net>, " * 100_000}},
    "many recipients": {"to": [f"a{n}@example.net" for n in range(19_000)]},
    "values": {"to": [1] * 1_000_000},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=list(HOSTILE))
def test_no_large_document_keeps_other_threads_waiting(fields: dict[str, Any]) -> None:
    # A collection would go through all that the test run keeps.
    gc.collect()
    gc.freeze()
    body = json.dumps({**SIMPLE, **fields}).encode()
    longest_s, since = 0.0, time.thread_time()

    def pause() -> None:
        nonlocal longest_s, since
        longest_s = max(longest_s, time.thread_time() - since)
        since = time.thread_time()

    try:
        with suppress(NotComposable, TooMany, Unreadable):
            letter_of(body, None, 500, pause)
        pause()
    finally:
        gc.unfreeze()
    assert longest_s < WITHOUT_PAUSE_S
