"""The limits of the header section. They hold at acceptance only, so no stored message fails for them."""

from __future__ import annotations

import pytest

from relay.mail.codes.masking import MASK
from relay.mail.dkim import Signer, why_unsignable
from relay.mail.dsn import RecipientReport, Stamp, delivery_status
from relay.mail.envelope import Envelope, Recipient
from relay.mail.message import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    MAX_KEPT_CHARS,
    Message,
    Unacceptable,
    from_addresses,
    normalise,
    parse,
    prepare,
    subject,
)
from relay.mail.recode import Unencodable, has_utf8_head, recoded
from relay.mail.redact import MAX_TEXT, redact, redact_reply

FROM = b"From: a@example.com\r\n"
END = b"\r\nbody \xc3\xa9\r\n"


def of_size(size_bytes: int, filler: bytes = b"x") -> bytes:
    """A header section of exactly that size in fields that the relay doesn't read, and a body."""
    lines = [FROM]
    left = size_bytes - len(FROM)
    while left > 0:
        length = left if left <= 3_000 else 2_000
        lines.append(b"X-Filler: ".ljust(length - 2, filler) + b"\r\n")
        left -= length
    return b"".join(lines) + END


def at_the_door(content: bytes) -> Message:
    return parse(normalise(content), limited=True)


TOO_MUCH = {
    "a byte too many": (of_size(MAX_HEADER_BYTES + 1), "header section is larger than 262144 bytes"),
    "a field too many": (FROM + b"a:\r\n" * MAX_FIELDS + END, "more than 1000 header fields"),
    "lines that are no fields": (FROM + b"a\r\n" * MAX_FIELDS + END, "more than 1000 header fields"),
    "a long From": (b"From: ".ljust(MAX_FIELD_BYTES + 8, b"x") + b"\r\n" + END, "larger than 32768 bytes"),
    "a folded Subject": (b"Subject:" + b" x\r\n" * 10_000 + END, "larger than 32768 bytes"),
    "many From": (b"".join(b"From: a@b".ljust(900) + b"\r\n" for _ in range(40)) + END, "larger than 32768 bytes"),
    "a long X-Relay-Lane": (b"X-Relay-Lane: ".ljust(40_000, b"x") + b"\r\n" + END, "larger than 32768 bytes"),
    "a long Content-Type": (b"Content-Type: ".ljust(40_000, b"x") + b"\r\n" + END, "larger than 32768 bytes"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_large_a_header_is_refused_at_acceptance_only(name: str) -> None:
    content, text = TOO_MUCH[name]
    with pytest.raises(Unacceptable, match=rf"^554 5\.6\.0 .*{text}"):
        at_the_door(content)
    assert parse(normalise(content)).content == content


@pytest.mark.parametrize(
    "content",
    [
        of_size(MAX_HEADER_BYTES),
        FROM + b"a:\r\n" * (MAX_FIELDS - 1) + END,
        b"From: a@b".ljust(MAX_FIELD_BYTES + 5) + b"\r\n" + END,
        b"X-Spam-RecipientReport: ".ljust(200_000, b"x") + b"\r\n" + END,
    ],
    ids=["bytes", "fields", "From", "a field that nothing looks into"],
)
def test_a_message_within_the_limits_passes_every_later_step(content: bytes) -> None:
    made = prepare(at_the_door(content), trace=b"Received: by us".ljust(600) + b"\r\n", date=b"now", message_id="<1@a>")
    stored = parse(made.content)
    subject(stored)
    from_addresses(stored)
    assert why_unsignable(stored) is None or not stored.content.startswith(b"From")
    assert Signer((), {}).select("example.com") is None
    assert redact_reply("550 no 123456", made.content) == "550 no 123456"
    has_utf8_head(made.content)
    assert recoded(made.content, "as it is")
    try:
        assert recoded(made.content, "7bit").isascii()
    except Unencodable:
        pytest.fail("its fields are ASCII")
    user = Recipient("user@example.net")
    delivery_status(
        Envelope("a@example.com", (user,)),
        (RecipientReport(user, "failed", "550 5.1.1 no"),),
        made.content,
        stamp=Stamp("relay.example.com", 0.0, "<2@a>", "b"),
        arrived_at=0.0,
    )


@pytest.mark.parametrize("text", ["1234 " * 200, "1234 " * 2_000, "1" * 1_000, "x" * 1_001])
def test_a_text_that_grows_by_its_masks_is_cut_too(text: str) -> None:
    assert len(redact(text)) <= MAX_TEXT


def test_what_is_stored_of_a_message_id_and_a_subject_is_cut() -> None:
    content = b"Message-ID: <".ljust(5_000, b"x") + b">\r\nSubject: " + b"word " * 2_000 + b"\r\n" + END
    message = at_the_door(content)
    made = prepare(message, trace=b"", date=b"now", message_id="<1@a>")
    assert made.content.endswith(content)
    assert made.message_id == "<".ljust(MAX_KEPT_CHARS, "x")
    kept = redact(subject(message))
    assert len(kept) <= MAX_TEXT
    assert kept.startswith("word word ")
    assert kept.endswith("…")


@pytest.mark.parametrize("before", range(MAX_TEXT - 50, MAX_TEXT + 10))
@pytest.mark.parametrize("code", ["482931", "4 8 2 9 3 1", "A1B2-C3D4"])
@pytest.mark.parametrize("long", ["", "9" * 600])
def test_a_cut_through_a_code_shows_no_part_of_it(before: int, code: str, long: str) -> None:
    kept = redact(f"code {long} ".ljust(before, ".") + " " + code + " and so on" * 20)
    rest = kept.replace(MASK, "")
    assert not any(char.isdigit() for char in rest)
    assert "A" not in rest
