"""The SMTP service's replies. All but the greeting, EHLO's, 334 and 354 have an enhanced code (RFC 3463, 2034)."""

from __future__ import annotations

from collections.abc import Sequence

from relay.mail.reply import Reply

_MAX_TEXT = 480
"""RFC 5321 4.5.3.1.5: a reply line is 512 octets at most."""

OK = Reply(250, "2.0.0 Ok")
SENDER_OK = Reply(250, "2.1.0 Ok")
RECIPIENT_OK = Reply(250, "2.1.5 Ok")
START_DATA = Reply(354, "End data with <CR><LF>.<CR><LF>")
BYE = Reply(221, "2.0.0 Bye")
READY_FOR_TLS = Reply(220, "2.0.0 Ready to start TLS")
AUTHENTICATED = Reply(235, "2.7.0 Authentication successful")
CANNOT_VERIFY = Reply(252, "2.0.0 Not verified here, but mail for it is taken")

UNKNOWN = Reply(500, "5.5.2 Command not recognized")
LINE_TOO_LONG = Reply(500, "5.5.6 Line too long")
BARE_LF = Reply(500, "5.5.2 A line must end in CRLF, not in LF alone")
BARE_CR = Reply(500, "5.5.2 A line can't contain CR without LF")
NUL = Reply(500, "5.5.2 A line can't contain NUL")
NO_ARGUMENT = Reply(501, "5.5.4 This command takes no argument")
NAME_MISSING = Reply(501, "5.5.4 A name must follow")
ADDRESS_MISSING = Reply(501, "5.5.4 An address must follow")
NOT_OFFERED = Reply(502, "5.5.1 Not offered here")

HELLO_FIRST = Reply(503, "5.5.1 Send EHLO or HELO first")
MAIL_FIRST = Reply(503, "5.5.1 Send MAIL first")
NESTED_MAIL = Reply(503, "5.5.1 A sender is given already")
RCPT_FIRST = Reply(503, "5.5.1 Send RCPT first")
IN_TRANSACTION = Reply(503, "5.5.1 Not allowed during a mail transaction")
ALREADY_TLS = Reply(503, "5.5.1 TLS is on already")
ALREADY_AUTHENTICATED = Reply(503, "5.5.1 Authenticated already")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1 No valid recipients")

TOO_BIG = Reply(552, "5.3.4 The message is larger than the limit")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3 Too many recipients")

TLS_FIRST = Reply(530, "5.7.0 Send STARTTLS first")
AUTH_FIRST = Reply(530, "5.7.0 Authentication required")
AUTH_NEEDS_TLS = Reply(538, "5.7.11 Encryption required for authentication")
AUTH_MECHANISM = Reply(504, "5.5.4 Mechanism not offered")
AUTH_SYNTAX = Reply(501, "5.5.4 Syntax: AUTH mechanism [initial-response]")
AUTH_MALFORMED = Reply(501, "5.5.2 Expected base64 of this mechanism's response")
AUTH_GIVEN_UP = Reply(501, "5.7.0 Authentication given up")
AUTH_FAILED = Reply(535, "5.7.8 Authentication credentials invalid")
AUTH_LATER = Reply(454, "4.7.0 Too many wrong logins from your address, try again later")

NOT_ALLOWED = Reply(554, "5.7.1 This network may not send mail here")
CONNECTIONS = Reply(421, "4.7.0 Too many connections")
TOO_MANY_ERRORS = Reply(421, "4.7.0 Too many errors")
ENDLESS_RECIPIENTS = Reply(421, "4.5.3 Too many recipients")
TOO_MANY_COMMANDS = Reply(421, "4.7.0 Too many commands without a message")
NOT_SMTP = Reply(421, "4.7.0 This is an SMTP server")
TIMED_OUT = Reply(421, "4.4.2 Timed out waiting for the client")
SHUTTING_DOWN = Reply(421, "4.3.2 The service is shutting down")
TROUBLE = Reply(451, "4.3.0 Trouble on this side, try again later")
SESSION_TROUBLE = Reply(421, "4.3.0 Trouble on this side, try again later")


def encode(reply: Reply, lines: Sequence[str] = ()) -> bytes:
    """A reply with its CRLF, printable ASCII whatever its text holds; `lines`: those behind the first (EHLO's)."""
    if lines:
        before = "".join(f"{reply.code}-{line}\r\n" for line in (reply.text, *lines[:-1]))
        return f"{before}{reply.code} {lines[-1]}\r\n".encode()
    text = reply.text
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" for char in text)
    return f"{reply.code} {text[:_MAX_TEXT]}\r\n".encode()
