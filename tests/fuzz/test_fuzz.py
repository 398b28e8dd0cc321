"""Fuzz from a corpus of troublesome inputs, with mutations for their grammars.

`FUZZ_EXAMPLES=100000 pytest tests/fuzz` runs longer. Add what it finds to the corpus.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SEEDS = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS}
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""asked for; 0: the usual"""
USUALLY = {
    "replies": 300,
    "headers": 400,
    "fields": 300,
    "contents": 200,
    "commands": 300,
    "config": 80,
    "letters": 300,
}
"""examples that take a second or so"""

TOKENS: Mapping[str, list[bytes]] = {
    "replies": [
        *(b"250 ", b"250-", b"354 ", b"421 ", b"451 ", b"550 ", b"150 ", b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b"-"),
        *(b"2.0.0 ", b"250 ok\r\n", b"354 go\r\n", b"550 5.1.1 no\r\n", b"CHUNKING", b"SIZE 10", b"x" * 2_050),
    ],
    "headers": [
        *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b":", b" ", b"\t", b"\x00", b"\xff", b"\xa0", b"\x0b", b"\x0c"),
        *(b"Bcc: a@b\r\n", b"X-Relay-Lane: otp\r\n", b"Subject: ", b"From: ", b"Date: x\r\n", b"Received: x\r\n"),
        *(b"=?utf-8?q?=0D=0A?=", b"=?utf-8?b?DQo=?=", b'"', b"<", b">", b"(", b")", b",", b";", b"=?utf-7?q?+AA0-?="),
    ],
    "fields": [
        *(
            b"\r\n ",
            b" ",
            b"\t",
            b"\x00",
            b"\xff",
            b"\xc3\xa9",
            b'"',
            b"\\",
            b"<",
            b">",
            b"(",
            b")",
            b"[",
            b"]",
            b"@",
            b",",
        ),
        *(b";", b":", b".", b"=?utf-8?q?", b"=?utf-8?b?", b"?=", b"name=", b"a@b", b"code ", b"482931", b"AUTH PLAIN "),
    ],
    "contents": [
        *(
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b" ",
            b"  ",
            b"\t",
            b"\xff",
            b"\xc3\xa9",
            b"x" * 1_000,
            b"--b\r\n",
            b"--b--\r\n",
            b"=",
        ),
        *(
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"DKIM-Signature: x\r\n",
        ),
        *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"Subject: "),
    ],
    "commands": [
        *(
            b"FROM:",
            b"TO:",
            b"<",
            b">",
            b"<>",
            b"@",
            b"[",
            b"]",
            b":",
            b".",
            b",",
            b'"',
            b"\\",
            b" ",
            b"\r",
            b"\n",
            b"\r\n",
            b"\xff",
        ),
        *(
            b"\xc3\xa9",
            b" SIZE=1",
            b" BODY=8BITMIME",
            b" SMTPUTF8",
            b" ENVID=",
            b" ORCPT=rfc822;",
            b" ORCPT=utf-8;",
            b"+2B",
        ),
        *(b"+0D", b" NOTIFY=", b"NEVER", b" BY=1;R", b" AUTH=<>", b" MT-PRIORITY=4", b"\r\n.\r\n", b"\r\n..", b"."),
    ],
    "config": [
        *(
            b"\n",
            b"  ",
            b": ",
            b"- ",
            b"{",
            b"}",
            b"[",
            b"]",
            b"&a ",
            b"*a",
            b"|",
            b">",
            b"'",
            b'"',
            b"#",
            b"!",
            b"<<: ",
        ),
        *(b"${SECRET}", b"${NO", b":-", b"null", b"no", b"1", b"1e9", b"-1", b"10m", b"\t", b"\x00", b"\xff", b"---\n"),
    ],
    "letters": [
        *(
            b'"',
            b"\\",
            b"\\r\\n",
            b"\\u0000",
            b"\\ud800",
            b"\\u2028",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"null",
            b"1",
        ),
        *(
            b"<",
            b">",
            b"@",
            b"a@x.example",
            b"Bcc",
            b"Content-Type",
            b"\xc3\xa4",
            b"\xff",
            b"x" * 1_000,
            b"=?utf-8?q?",
            b" ",
        ),
    ],
}


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """A seed, or two crossed, after a few edits."""
    seeds = st.sampled_from(SEEDS[name]).map(Path.read_bytes)
    piece = st.one_of(st.sampled_from(TOKENS[name]), st.binary(max_size=4))
    edit = st.tuples(st.floats(0, 1), st.integers(0, 12), piece)

    def apply(seed: bytes, other: bytes, cross: float | None, edits: list[tuple[float, int, bytes]]) -> bytes:
        data = seed if cross is None else seed[: int(cross * len(seed))] + other[int(cross * len(other)) :]
        for place, cut, put in edits:
            at = int(place * len(data))
            data = data[:at] + put + data[at + cut :]
        return data

    crossing = st.one_of(st.none(), st.floats(0, 1))
    return st.builds(apply, seeds, seeds, crossing, st.lists(edit, max_size=6))


@pytest.mark.parametrize("seed", [seed for seeds in SEEDS.values() for seed in seeds], ids=lambda seed: seed.name)
def test_the_corpus_holds(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_mutation_of_the_corpus_holds(name: str) -> None:
    @settings(max_examples=EXAMPLES or USUALLY[name], deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(name))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
