"""`otp-relay sendmail`, also installed as `otp-relay-sendmail`: sendmail(8)-compatible submission on stdin.

Programs start it once for every message, so it imports next to nothing: no argparse, no smtplib, no pydantic.
"""

from __future__ import annotations

import os
import sys

from relay.sendmail.compose import EX_IOERR, EX_TEMPFAIL, EX_USAGE, Failed, Request, compose

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import NoReturn

USAGE = """usage: otp-relay sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [-N NOTIFY] [-R RETURN] [-V ENVID] [RECIPIENT...]

Submits the message on stdin to the relay. Options of other sendmails that change nothing here are accepted.
  -t          take the recipients from To, Cc and Bcc (too)
  -i, -oi     a line with a single dot doesn't end the message
  -f, -r      the envelope sender; <> for none
  -F          the sender's full name, where the message has no From
  -N -R -V    DSN: never or a list of success,failure,delay; full or hdrs; an envelope id
  -C, -c      the relay's configuration, to find its listener in
  -v          print the relay's reply
Where to: $OTP_RELAY_SUBMIT (host:port or unix:/path), else the first listener of the configuration
($OTP_RELAY_CONFIG, config/relay.yaml) that needs neither TLS nor AUTH, else 127.0.0.1:2525."""

_VALUED = frozenset("ABCDFLNORVXbcefhopr")
_JOINED = frozenset("dqM")
"""Options whose value is never the next argument."""
_MODES = {
    "d": "start the relay with `otp-relay run`",
    "i": "there are no aliases to build",
    "p": "see `otp-relay queue`",
    "s": "speak SMTP to the relay's listener",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    # No prefix character: every argument is sendmail's own to read, those that look like options too.
    parser = subparsers.add_parser(
        "sendmail", prefix_chars="\0", add_help=False, help="submit a message on stdin, as sendmail(8) does"
    )
    parser.add_argument("arguments", nargs="...")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return send(args.arguments)


def main() -> NoReturn:
    sys.exit(send(sys.argv[1:]))


def send(arguments: Sequence[str]) -> int:
    """Submit stdin as the arguments ask. Returns the exit status; a failure is one line on stderr."""
    try:
        request = parse_arguments(arguments)
        if request.help:
            _print(USAGE)
            return 0
        reply = _submit(request)
    except Failed as failed:
        print(f"otp-relay sendmail: {failed}", file=sys.stderr)
        return failed.status
    if request.verbose:
        _print(reply)
    return 0


def _print(text: str) -> None:
    """Print to stdout, where it is open. A closed one is no failure: the relay has the message, and the app would send
    it again."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_arguments(arguments: Sequence[str]) -> Request:
    """Parse as getopt(3) does; options may follow recipients. Raises Failed."""
    request = Request()
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        if argument == "--":
            request.recipients += reversed(waiting)
            break
        if argument == "--help":
            request.help = True
        elif argument.startswith("--"):
            raise Failed(EX_USAGE, f"unknown option {argument}")
        elif argument.startswith("-") and argument != "-":
            _parse_options(request, argument[1:], waiting)
        else:
            request.recipients.append(argument)
    return request


def _parse_options(request: Request, letters: str, waiting: list[str]) -> None:
    """One argument without its dash: flags, and perhaps a last option with its value."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _JOINED:
            if letter == "q":
                raise Failed(EX_USAGE, "-q isn't supported; see `otp-relay queue retry`")
            return
        if letter in _VALUED:
            if not letters and not waiting:
                raise Failed(EX_USAGE, f"option -{letter} needs a value")
            _set(request, letter, letters or waiting.pop())
            return
        if letter == "t":
            request.from_headers = True
        elif letter == "i":
            request.dots_are_content = True
        elif letter == "v":
            request.verbose = True


def _set(request: Request, letter: str, value: str) -> None:
    match letter:
        case "f" | "r":
            request.sender = value.removeprefix("<").removesuffix(">")
        case "F":
            request.full_name = value
        case "C" | "c":  # -c as with the other commands; no sendmail has another use for it
            request.config = value
        case "N":
            if not set(value.upper().split(",")) <= {"NEVER", "SUCCESS", "FAILURE", "DELAY"}:
                raise Failed(EX_USAGE, "-N takes never, or some of success,failure,delay")
            request.notify = value.upper()
        case "R":
            if value.upper() not in ("FULL", "HDRS"):
                raise Failed(EX_USAGE, "-R takes full or hdrs")
            request.ret = value.upper()
        case "V":
            request.envid = value
        case "o":
            request.dots_are_content = request.dots_are_content or value.startswith("i")
        case "b" if value[:1] != "m":
            raise Failed(EX_USAGE, f"-b{value[:1]} isn't supported: {_MODES.get(value[:1], 'only -bm is')}")


def _submit(request: Request) -> str:
    from relay.sendmail.submit import CannotConnect, find_places, submit

    places, hostname = find_places(os.environ, request.config)
    try:
        given = sys.stdin.buffer.read()
    except OSError as error:
        raise Failed(EX_IOERR, f"stdin: {error.strerror}") from None
    message = compose(request, given, user=_user(), hostname=hostname)
    why = "no listener"
    for place in places:
        try:
            return submit(place, message)
        except CannotConnect as error:
            why = str(error)
    raise Failed(EX_TEMPFAIL, why)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not be in its passwd
        return os.environ.get("LOGNAME") or str(os.getuid())
