"""The rules of lint: how grave each is, what is wrong, why it matters for a code, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Level = Literal["error", "warning", "hint"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, slots=True)
class LintFinding:
    """`rule` is a stable name; `text` shows no code."""

    rule: str
    level: Level
    text: str


class Rule(NamedTuple):
    """`text` has a place in braces for each value that a finding fills in."""

    level: Level
    text: str


def found(rule_name: str, /, **values: object) -> LintFinding:
    """A finding of the rule of that name."""
    rule = RULES[rule_name]
    return LintFinding(rule_name, rule.level, rule.text.format(**values))


RULES: dict[str, Rule] = {
    # bytes
    "nul": Rule("error", "A NUL byte: the relay refuses the message. Remove it."),
    "bare-cr": Rule(
        "error",
        "A CR without LF: it is refused in the header section, and rewritten in the body, which breaks a signature of "
        "the app's own. End lines with CRLF.",
    ),
    "bare-lf": Rule(
        "warning",
        "LF without CR beside CRLF: servers differ in what they make of mixed line ends. End every line with CRLF.",
    ),
    "long-line": Rule(
        "error",
        "A line of more than 998 octets (RFC 5322 2.1.1): servers break or refuse it. Use quoted-printable or base64.",
    ),
    "header": Rule(
        "error",
        "A line in the header section that is no field: the message can't be signed. Look for a line break in a "
        "field's value.",
    ),
    "twice": Rule("error", "{name} occurs {number} times (RFC 5322 3.6): mailboxes reject that. Keep one."),
    "8bit-header": Rule(
        "warning", "8-bit text in the header section: it arrives garbled or is refused. Use RFC 2047 encoded words."
    ),
    "8bit-encoding": Rule(
        "error",
        "8-bit bytes in a {kind} part that doesn't declare them: servers refuse or change them. Use quoted-printable "
        "or base64.",
    ),
    "8bit-charset": Rule(
        "warning", "8-bit bytes in a {kind} part without a charset: readers guess. Declare charset=utf-8."
    ),
    "multipart": Rule(
        "error",
        "A {kind} without parts: the boundary that Content-Type names never occurs, so nothing is shown. Let a mail "
        "library build the message.",
    ),
    "charset": Rule(
        "warning", "The unknown charset {charset!r} of a {kind} part: readers guess. Declare charset=utf-8."
    ),
    # identities
    "from": Rule("error", "No From address: DKIM and DMARC have nothing to align with, so mailboxes refuse the mail."),
    "identities": Rule(
        "warning", "{what}: a code from more than one identity looks like phishing. Use one sender of one domain."
    ),
    "recipients": Rule(
        "warning",
        "{number} recipients: a code is for one, and each sees the others' addresses. Send each a mail of its own.",
    ),
    "free-mail": Rule(
        "error",
        "From is at {domain}, which signs with its own keys only: DMARC fails wherever else the mail comes from. Use a "
        "domain of yours.",
    ),
    "no-domain": Rule(
        "error",
        "From is at {domain}, which isn't in the public DNS: neither SPF nor DKIM nor DMARC can pass. Use a domain of "
        "yours.",
    ),
    "no-key": Rule(
        "warning",
        "The configuration has no DKIM key for {domain}: unless the provider signs for it, DMARC has SPF alone. "
        "Add the domain under `dkim`.",
    ),
    # other fields
    "date": Rule("hint", "No Date: the relay adds one, but the app can't refer to it. Set Date."),
    "date-unreadable": Rule(
        "warning", "A Date that can't be read (RFC 5322 3.3): spam filters count that. Let your mail library write it."
    ),
    "date-off": Rule(
        "warning",
        "Date is {hours:.1f} hours {where}: mailboxes sort the mail to the wrong place, and spam filters count that. "
        "Correct the clock or its time zone.",
    ),
    "message-id": Rule("hint", "No Message-ID: the relay adds one, but the app can't refer to it. Set Message-ID."),
    "message-id-host": Rule(
        "warning",
        "Message-ID at {domain}: spam filters count that. Set the host name of the program to a domain of yours.",
    ),
    "auto-submitted": Rule(
        "hint", "No `Auto-Submitted: auto-generated` (RFC 3834): out-of-office replies come back. Add the field."
    ),
    "list-unsubscribe": Rule(
        "warning",
        "List-Unsubscribe marks a newsletter: the code lands among promotions, and one click ends all codes. Remove "
        "the field.",
    ),
    "precedence": Rule(
        "warning", "`Precedence: {value}` says that the mail is one of many and can wait. Remove the field."
    ),
    # subject
    "subject": Rule(
        "warning",
        "No subject: spam filters count that, and the reader can't find the code. Say what it is: “Your sign-in code”.",
    ),
    "subject-generic": Rule(
        "warning",
        "A subject that could stand over any mail: phishing uses the same. Say what it is: “Your sign-in code”.",
    ),
    "subject-unclear": Rule(
        "warning",
        "A subject with neither the code nor a word for it: the reader can't find it in a full mailbox. Name the code, "
        "or begin with it.",
    ),
    "subject-marketing": Rule(
        "warning",
        "A subject with words of marketing: mailboxes put such mail among promotions. Keep codes and campaigns apart.",
    ),
    "shouting": Rule(
        "warning",
        "A subject in capitals or with exclamation marks: spam filters count that. Write it as a plain sentence.",
    ),
    # code
    "no-code": Rule(
        "error",
        "No code was found in the subject or in the text. If the mail carries one, write “Your code is …” with the "
        "code on a line of its own. If it carries none, lint isn't meant for it.",
    ),
    "code-in-image": Rule(
        "error",
        "No code in the text, but an image: many readers don't load images, and a code can't be copied from one. Write "
        "the code as text.",
    ),
    "code-in-one-part": Rule(
        "error", "The {kind} part lacks the code: a reader of that part can't find it. Write the code into both parts."
    ),
    "code-length": Rule(
        "warning",
        "A code of {number} characters: phones offer to fill in 4 to 8, and people mistype longer ones. Use 6 digits.",
    ),
    "code-letters": Rule(
        "hint",
        "A code with letters: it takes longer to type, and O and 0 look alike. Digits suffice for a code that expires.",
    ),
    "other-numbers": Rule(
        "warning",
        "Another number as long as the code: phones and people pick the wrong one. Leave it out, or write it in "
        "another form.",
    ),
    "code-twice": Rule(
        "warning", "The text has the code more than once: the reader wonders which counts. Write it once."
    ),
    "not-prominent": Rule(
        "warning",
        "The code stands within a paragraph: the reader looks for it while it expires. Give it a line of its own.",
    ),
    "no-expiry": Rule(
        "hint",
        "Not a word on how long the code is valid: readers try old ones. Say “The code is valid for 10 minutes”.",
    ),
    "no-ignore": Rule(
        "hint",
        "Not a word for a reader that asked for no code. Say “If you didn't ask for this code, ignore this mail”.",
    ),
    "long-footer": Rule(
        "warning",
        "{number} characters of text behind the code: spam filters see a newsletter. Keep to an address and one link.",
    ),
    # parts
    "no-text": Rule(
        "warning",
        "No text/plain part: watches, screen readers and spam filters look for it. Send multipart/alternative.",
    ),
    "empty-text": Rule(
        "warning", "The text/plain part is empty: watches and screen readers show nothing. Write the code there, too."
    ),
    "attachment": Rule(
        "warning",
        "An attachment ({kind}): mailboxes hold the mail back to examine it, and the code waits. Send it in another "
        "mail.",
    ),
    # HTML
    "clipped": Rule(
        "warning",
        "An HTML part of more than 102,400 bytes: Gmail cuts it off. Leave out styles and images that a code doesn't "
        "need.",
    ),
    "large-html": Rule(
        "warning", "An HTML part of {size} KB: spam filters see a newsletter. A code needs less than 20 KB."
    ),
    "image-heavy": Rule(
        "warning", "{number} images: spam filters see a newsletter, and the text waits for them. One logo is enough."
    ),
    "tracking-pixel": Rule(
        "hint", "An image of one pixel: some mailboxes block what tracks. Use of the code shows that it was read."
    ),
    "form": Rule(
        "error", "A form: mail programs remove it, or warn of phishing. Let the reader type the code at your site."
    ),
    "hidden-text": Rule(
        "warning", "{number} hidden characters: spam filters count hidden text. Keep to a short preview text."
    ),
    # links
    "shortener": Rule(
        "error", "A shortened link ({host}): phishing hides its target so, and mailboxes block it. Link to your domain."
    ),
    "social": Rule("warning", "Links to social networks ({host}): they mark a newsletter. Leave them out of codes."),
    "marketing-link": Rule(
        "warning", "A link with a campaign's parameters: it marks a newsletter. Leave them out of codes."
    ),
    "link-mismatch": Rule(
        "error",
        "A link that shows one host and leads to another ({host}): the pattern of phishing. Show the host that it "
        "leads to.",
    ),
    "foreign-link": Rule(
        "warning",
        "Links to other domains than the sender's ({hosts}): the name of a click counter is shared with strangers. "
        "Link to your domain.",
    ),
    "many-links": Rule(
        "warning", "{number} different links: the reader should do one thing only. Keep the code, and one link to help."
    ),
}
"""by name; findings of one level come in this order"""
