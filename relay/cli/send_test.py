"""`otp-relay send-test`: one code of its own through the running relay, and its time line."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from relay.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    config_path,
    configured_duration,
    fail,
    printable,
    set_command,
)
from relay.cli.ready import wait_s
from relay.cli.source import Server, add_url, contact, reached, token_hint

if TYPE_CHECKING:
    from relay.config.partial import Control
    from relay.web.client import Response

DEFAULT_WAIT_S = 15.0
LOCAL_PART = "otp-relay"
"""of From, where no --from is given"""
CODE_DIGITS = 6
_ANSWER_WITHIN_S = 10.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5)
"""between two looks at the message; the last repeats"""
_WAITING = frozenset({"queued", "sending", "deferred", "ambiguous"})
"""states of a recipient that change by themselves"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "send-test",
        help="send one code of its own through the running relay",
        description="Sends one mail with a code of its own through the running relay, by its HTTP API, and shows what "
        "became of it. Exit 0: an upstream has taken it; 1: none has, and the last reply is on stderr.",
    )
    parser.add_argument("to", metavar="TO", help="the recipient")
    parser.add_argument("--lane", metavar="LANE", help="default: the one that the rules name")
    parser.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help=f"default: {LOCAL_PART}@ the first domain of dkim, or hostname"
    )
    parser.add_argument(
        "--wait", type=wait_s, metavar="TIME", default=DEFAULT_WAIT_S, help="for the upstream's reply (default: 15s)"
    )
    parser.add_argument("--json", action="store_true", help="the message as one JSON document")
    add_config(parser)
    add_url(parser)
    set_command(parser, send_test)


def send_test(args: argparse.Namespace) -> int:
    """Exit 0 if the mail was sent, else 1."""
    relay = reached(args)
    if args.sender is None and isinstance(relay, Server):
        raise CommandFailed("--from is needed with --url", EXIT_USAGE)
    message_id = _send(relay, _mail(args))
    found = _finished(relay, message_id, args.wait)
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        from relay.cli.mail_text import message

        print(message(found))
    unsent = [one for one in found["recipients"] if one["state"] != "sent"]
    for one in unsent:
        waited = f" after {configured_duration(args.wait * 1000)}" if one["state"] in _WAITING else ""
        fail(printable(f"not sent{waited}: {one['address']} is {one['state']}: {one['reply'] or 'no reply so far'}"))
    return EXIT_FAILED if unsent else EXIT_OK


def _mail(args: argparse.Namespace) -> dict[str, str]:
    """The body of the request. Its code is in no other place."""
    import secrets

    code = "".join(secrets.choice("0123456789") for _ in range(CODE_DIGITS))
    mail = {
        "from": args.sender or f"{LOCAL_PART}@{_domain(args)}",
        "to": args.to,
        "subject": f"Your verification code: {code}",
        "text": f"Your verification code is {code}.\n\nIt is a test of otp-relay, and opens nothing.\n",
    }
    return mail if args.lane is None else {**mail, "lane": args.lane}


def _domain(args: argparse.Namespace) -> str:
    from relay.config.partial import find_sender_domain

    found = find_sender_domain(config_path(args), os.environ)
    if found is None:
        from relay.config.defaults import machine_name

        found = machine_name()
    return found


def _send(relay: Control | Server, mail: dict[str, str]) -> str:
    """The message's id. Raises CommandFailed."""
    response = _ask(relay, "POST", "/api/send", mail)
    if response.status != 202:
        raise CommandFailed(printable(f"the relay refuses the mail: {_reason(relay, response)}"))
    return str(response.document["id"])


def _finished(relay: Control | Server, message_id: str, within_s: float) -> dict[str, Any]:
    """The message once nothing more happens to it by itself, or as it is after `within_s`. Raises CommandFailed."""
    ends_at = time.monotonic() + within_s
    for pause_s in _pauses():
        response = _ask(relay, "GET", f"/api/messages/{message_id}")
        if response.status != 200:
            raise CommandFailed(printable(f"message {message_id}: {_reason(relay, response)}"))
        document = response.document
        if not any(one["state"] in _WAITING for one in document["recipients"]) or time.monotonic() >= ends_at:
            break
        time.sleep(min(pause_s, max(0.0, ends_at - time.monotonic())))
    return document


def _pauses() -> Any:
    from itertools import chain, repeat

    return chain(_PAUSES_S, repeat(_PAUSES_S[-1]))


def _ask(relay: Control | Server, method: str, path: str, body: object = None) -> Response:
    """Raises CommandFailed where no relay answers."""
    from relay.web.client import NoResponse, NotListening, request

    address, token = contact(relay)
    try:
        if address is None:
            raise ValueError("it can't be read: see `otp-relay check`")
        return request(address, method, path, body, token=token, within_s=_ANSWER_WITHIN_S)
    except NotListening:
        raise CommandFailed(f"no relay answers at {address}: start it with `otp-relay run`") from None
    except NoResponse as error:
        raise CommandFailed(printable(f"http {address}: no proper answer ({error})")) from error
    except ValueError as error:
        raise CommandFailed(f"http.address: {error}") from error


def _reason(relay: Control | Server, response: Response) -> str:
    """What the relay answered, with a hint where the token is wrong."""
    return f"{response.status} {response.error}".rstrip() + token_hint(relay, response.status)
