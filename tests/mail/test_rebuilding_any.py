"""What a program puts into a message comes out of it again; and whatever the bytes, only CannotRebuild is raised."""

from __future__ import annotations

import email.policy
import json
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from relay.mail.compose import Attachment as File
from relay.mail.compose import Mailbox as Person
from relay.mail.compose import Parts, compose
from relay.mail.message import Unacceptable, normalise
from relay.mail.rebuilding import CannotRebuild, carried_by, rebuilt
from relay.providers.api import Attachment, Mailbox, Rebuilt
from relay.providers.webhook import Field
from tests.mail.test_rebuilding import ALTERNATIVE, FILE, FROM, HEAD, HTML_PART, MIXED, PLAIN_PART
from tests.mail.test_rebuilding_bodies import END, NESTED

VISIBLE = st.characters(categories=("L", "M", "N", "P", "S"))
WORDS = st.lists(st.text(VISIBLE, min_size=1, max_size=12), max_size=4).map(" ".join)
"""as subjects and names are: one blank between two words"""
LINES = st.lists(st.one_of(WORDS, st.text(st.one_of(VISIBLE, st.sampled_from(" \t=.")), max_size=90)), max_size=3)
ADDRESSES = st.from_regex(r"[a-z0-9+_-]{1,12}(\.[A-Z]{1,5})?@[a-z][a-z0-9-]{0,8}[a-z]\.example", fullmatch=True)
MAILBOXES = st.builds(Mailbox, ADDRESSES, WORDS)
LISTS = st.lists(MAILBOXES, max_size=2).map(tuple)
KINDS = st.sampled_from(["application/pdf", "image/png", "application/octet-stream", "text/csv"])
ATTACHMENTS = st.builds(Attachment, WORDS.filter(bool), KINDS, st.binary(max_size=200))
NAMES = st.from_regex(r"X-[A-Za-z]{1,12}", fullmatch=True)
BODIES = LINES.map(lambda lines: "".join(f"{line}\n" for line in lines)).filter(str.strip)
MAILS = st.builds(
    Rebuilt, MAILBOXES, LISTS, LISTS, LISTS, WORDS, st.one_of(st.none(), BODIES), st.one_of(st.none(), BODIES),
    st.lists(ATTACHMENTS, max_size=2).map(tuple),
    st.lists(st.builds(Field, NAMES, WORDS), max_size=2, unique_by=lambda one: one.name.lower()).map(tuple),
).filter(lambda mail: mail.text is not None or mail.html is not None)  # fmt: skip


UNFOLDED = email.policy.SMTP.clone(max_line_length=None)
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""it takes minutes for a whole mail"""


def looks_encoded(mail: Rebuilt) -> bool:
    """Whether a text looks like an encoded word: other programs would decode it too."""
    texts = [mail.subject, *(field.value for field in mail.headers), *(one.filename for one in mail.attachments)]
    return any(
        "=?" in text for text in (*texts, *(one.name for one in (mail.author, *mail.to, *mail.cc, *mail.reply_to)))
    )


def written_by_the_library(mail: Rebuilt, encoding: str | None) -> bytes:
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = _listed((mail.author,))
    for name, people in (("To", mail.to), ("Cc", mail.cc), ("Reply-To", mail.reply_to)):
        if people:
            message[name] = _listed(people)
    message["Subject"] = mail.subject
    for field in mail.headers:
        message[field.name] = field.value
    if mail.text is not None:
        message.set_content(mail.text, cte=encoding)
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html", cte=encoding)
    else:
        assert mail.html is not None
        message.set_content(mail.html, subtype="html", cte=encoding)
    for one in mail.attachments:
        main, _, sub = one.content_type.partition("/")
        message.add_attachment(one.data, maintype=main, subtype=sub, filename=one.filename)
    # Where it folds, the library loses blanks between encoded words, or encodes some of them twice.
    return message.as_bytes(policy=UNFOLDED)


def _listed(people: tuple[Mailbox, ...]) -> tuple[Address, ...]:
    return tuple(Address(one.name, addr_spec=one.address) for one in people)


@settings(max_examples=50, phases=NO_SHRINKING)
@given(MAILS, st.sampled_from([None, "base64", "quoted-printable"]))
def test_what_the_standard_library_writes_comes_out_as_it_was_put_in(mail: Rebuilt, encoding: str | None) -> None:
    assume(not looks_encoded(mail))
    found = rebuilt(written_by_the_library(mail, encoding))
    assert found == mail
    assert carried_by(found, lambda _: True, [one.address for one in (mail.author, *mail.to, *mail.cc)]) is None


@settings(max_examples=50, phases=NO_SHRINKING)
@given(MAILS)
def test_what_the_relay_composes_comes_out_as_it_was_put_in(mail: Rebuilt) -> None:
    assume(not looks_encoded(mail))
    mail = mail._replace(to=(mail.author, *mail.to), cc=(), reply_to=())
    parts = Parts(
        author=Person(mail.author.name, mail.author.address),
        recipients=tuple(Person(one.name, one.address) for one in mail.to),
        subject=mail.subject,
        text=mail.text,
        html=mail.html,
        headers={field.name: field.value for field in mail.headers},
        attachments=tuple(File(one.filename, one.data, one.content_type) for one in mail.attachments),
    )
    assert rebuilt(compose(parts, lambda: None)) == mail


SEEDS = [
    HEAD + b"\r\nYour code is 482931\r\n",
    HEAD + ALTERNATIVE + PLAIN_PART + HTML_PART + END,
    HEAD + MIXED + NESTED + b"--b\r\n" + FILE + b"Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n" + END,
    FROM + b'To: =?utf-8?q?J=C3=B6?= <u@y.example>, "a, b" <v@y.example>\r\nX-A: =?utf-8?b?w6Q=?=\r\n\r\nx\r\n',
    HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D=\r\nb\r\n",
    HEAD
    + MIXED
    + PLAIN_PART
    + b"--b\r\n"
    + FILE.replace(b"=a.pdf", b"*0*=utf-8''%C3;filename*1*=%BC")
    + b"\r\nx\r\n"
    + END,
]
TOKENS = [
    b"\r\n", b"\r\n\r\n", b"\r\n ", b" ", b"\t", b"\0", b"\xff", b"\xc3\xa9", b"\xc2\x85", b"--b\r\n", b"--b--", b"--c",
    b"=?utf-8?q?", b"=?utf-8?b?", b"?=", b"=?utf-7?q?+2AA-?=", b"=", b"=0D", b"%0", b"''", b"*", b"*0*=", b"*1=", b'"',
    b"\\", b"(", b"<", b">", b"@", b",", b";", b":", b"charset=", b"charset=utf-7", b"charset=utf-16", b"charset=hz",
    b"charset=idna", b"charset=unicode_escape", b"boundary=", b"filename=", b"Content-Type: ", b"Content-ID: x\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"Subject: ", b"To: ",
    b"Sender: a@x.example\r\n", b"text/html", b"multipart/mixed", b"message/rfc822", b"+2AA-", b"a@[1", b"a@b",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from([0, 0, 1, 3, 12]), st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4))
    ),
    max_size=6,
)


def holds(content: bytes) -> None:
    """It is taken apart into what JSON and a header can hold, or CannotRebuild is raised."""
    try:
        found = rebuilt(content)
    except CannotRebuild:
        return
    json.dumps(found, default=repr, ensure_ascii=False).encode()
    people = (found.author, *found.to, *found.cc, *found.reply_to)
    lines = [found.subject, *(one.filename for one in found.attachments), *(one.name for one in people)]
    lines += [text for field in found.headers for text in field]
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for line in lines for char in line)
    assert all(one.address.isascii() and "@" in one.address for one in people)
    assert (found.text or "").strip() or (found.html or "").strip()
    for text in (found.text, found.html):
        assert text is None or not {"\0", "\r"} & set(text)


@settings(max_examples=400, phases=NO_SHRINKING)
@given(st.sampled_from(SEEDS), EDITS)
def test_a_mutated_message_raises_nothing_but_cannot_rebuild(
    seed: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    for place, cut, piece in edits:
        at = int(place * len(seed))
        seed = seed[:at] + piece + seed[at + cut :]
    holds(seed)
    try:
        holds(normalise(seed))
    except Unacceptable:
        return


@given(
    st.one_of(
        st.binary(max_size=300), st.lists(st.sampled_from([*TOKENS, FROM, HEAD, MIXED]), max_size=30).map(b"".join)
    )
)
def test_garbage_raises_nothing_but_cannot_rebuild(content: bytes) -> None:
    holds(content)
    holds(HEAD + b"Content-Type: text/plain" + content)


def test_the_corpus_of_troublesome_contents_raises_nothing_but_cannot_rebuild() -> None:
    for folder in ("contents", "headers", "fields"):
        for path in sorted((Path(__file__).parents[1] / "fuzz/corpus" / folder).iterdir()):
            holds(path.read_bytes())
            holds(FROM + path.read_bytes())
