"""`otp-relay check` and `otp-relay explain`: what the configuration says, and what it would do with a message."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.cli.common import EXIT_CONFIG, add_config, config_path, load_or_exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.config.model import Config, Loaded
    from relay.mail.message import Message
    from relay.routing.facts import Facts
    from relay.routing.router import Explanation

MAX_MESSAGE_BYTES = 1 << 30


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check_parser = subparsers.add_parser(
        "check",
        help="validate the configuration and the files it names",
        description="Validates the configuration and every file it names, without starting. "
        "Exit 0: all well; 2: the mistakes are on stderr.",
    )
    add_config(check_parser)
    check_parser.set_defaults(run=check)

    explain_parser = subparsers.add_parser(
        "explain",
        help="which lane a message would take, and why",
        description="Shows lane, rule, upstreams, signatures and limits of a message, and why each earlier rule did "
        "not match. Sends nothing.",
    )
    add_config(explain_parser)
    explain_parser.add_argument("file", metavar="FILE.eml", help="the message; - is standard input")
    explain_parser.add_argument("--from", dest="sender", metavar="A", help="envelope sender (default: the header's)")
    explain_parser.add_argument(
        "--to", dest="recipients", metavar="B", action="append", help="a recipient, repeatable (default: the headers')"
    )
    explain_parser.add_argument("--client", metavar="IP", default="127.0.0.1", help="default: 127.0.0.1")
    explain_parser.add_argument("--listener", metavar="ADDRESS", help="default: the first that is configured")
    explain_parser.add_argument("--priority", metavar="N", type=int, help="MT-PRIORITY")
    explain_parser.add_argument("--json", action="store_true", help="one JSON document")
    explain_parser.set_defaults(run=explain)


def check(args: argparse.Namespace) -> int:
    """Exit 0 and a summary, with what is worth knowing; or 2 and the errors."""
    from relay.config.private_keys import contradictions

    loaded = load_or_exit(config_path(args))
    config = loaded.config
    if problems := _problems(loaded):
        print("\n".join(problems), file=sys.stderr)
        return EXIT_CONFIG
    for note in (*loaded.notes, *contradictions(loaded.dkim_pems), *_without_users(loaded)):
        print(f"note: {note}")
    counts = (
        _count(len(config.listen), "listener"),
        _count(len(config.upstreams), "upstream"),
        _count(len(config.lanes), "lane"),
        _count(len(config.rules), "rule"),
        _count(len(loaded.dkim_pems), "DKIM key"),
    )
    print(f"{loaded.path}: ok ({', '.join(counts)}; default lane {config.default_lane})")
    return 0


def _problems(loaded: Loaded) -> list[str]:
    """Mistakes in users files, which would keep `run` from starting."""
    found = []
    files = {one.users_file for one in loaded.config.listen if one.auth == "required" and one.users_file is not None}
    if files:
        from relay.intake.users import Users, UsersError

        for file in sorted(files):
            try:
                Users.load(file)
            except UsersError as error:
                found.append(str(error))
    return found


def _without_users(loaded: Loaded) -> Iterator[str]:
    """Listeners that ask for a login which none has."""
    for number, listener in enumerate(loaded.config.listen):
        if listener.auth == "required" and listener.users_file is not None:
            from relay.intake.users import read_users

            if not read_users(listener.users_file):
                place = loaded.places.of("listen", number, "users_file")
                yield f"{place}: no user yet, so nobody can log in; otp-relay user add NAME"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def explain(args: argparse.Namespace) -> int:
    """Exit 0; or 2 when the configuration or the message can't be taken."""
    from relay.mail.message import Unacceptable, normalise, parse
    from relay.routing.router import Router

    loaded = load_or_exit(config_path(args))
    try:
        content = _content(args.file)
        message = parse(normalise(content), limited=True)
        facts = _facts(args, loaded.config, message)
    except OSError as error:
        return _failed(f"{args.file}: {error.strerror or error}")
    except Unacceptable as error:
        return _failed(f"{args.file}: would be refused: {error.reply}")
    except ValueError as error:
        return _failed(str(error))
    told = _Told(loaded, facts, Router(loaded.config).explain(facts), len(content), message)
    print(json.dumps(told.as_json(), ensure_ascii=False) if args.json else told.as_text())
    return 0


def _failed(reason: str) -> int:
    print(f"otp-relay explain: {reason}", file=sys.stderr)
    return EXIT_CONFIG


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_MESSAGE_BYTES)
    with Path(file).open("rb") as source:
        return source.read(MAX_MESSAGE_BYTES)


def _facts(args: argparse.Namespace, config: Config, message: Message) -> Facts:
    """Raises ValueError for a listener that there isn't."""
    from relay.mail.message import from_addresses, subject
    from relay.routing.facts import Facts

    listener = next((one for one in config.listen if args.listener in (None, str(one.address))), None)
    if listener is None:
        known = ", ".join(str(one.address) for one in config.listen)
        raise ValueError(f"there is no listener {args.listener}; there is {known}")
    senders = from_addresses(message)
    recipients = tuple(args.recipients or _header_addresses(message, ("to", "cc", "bcc")))
    sender = args.sender if args.sender is not None else next(iter(senders), "")
    return Facts(
        sender="" if sender == "<>" else sender,
        from_addresses=senders,
        recipients=recipients,
        client=args.client,
        subject=subject(message),
        headers=tuple((field.name, field.value) for field in message.fields),
        listener=str(listener.address),
        listener_lane=listener.lane,
        priority=args.priority,
    )


def _header_addresses(message: Message, names: tuple[str, ...]) -> list[str]:
    from relay.mail.address_list import addresses_in
    from relay.mail.header_text import text_of

    found = [addresses_in(text_of(field.value)) for field in message.fields if field.name in names]
    return list(dict.fromkeys(address for addresses in found for address in addresses))


class _Told(NamedTuple):
    """An explanation with what else becomes of the message."""

    loaded: Loaded
    facts: Facts
    explanation: Explanation
    size_bytes: int
    message: Message

    def dkim(self) -> tuple[str, tuple[str, ...]] | None:
        """The domain that signs and the selectors of its keys."""
        from relay.mail.address import domain_of
        from relay.mail.dkim import Signer

        config = self.loaded.config
        if not config.dkim or not self.facts.from_addresses:
            return None
        keys = Signer(config.dkim, self.loaded.dkim_pems).select(domain_of(self.facts.from_addresses[0]))
        return (keys.domain, keys.selectors) if keys is not None else None

    def refusals(self) -> list[str]:
        """The limits that this message breaks."""
        limits = self.loaded.config.limits
        found = []
        if self.size_bytes > limits.message_size_bytes:
            found.append(f"{self.size_bytes} bytes, {limits.message_size_bytes} are taken")
        if len(self.facts.recipients) > limits.recipients:
            found.append(f"{len(self.facts.recipients)} recipients, {limits.recipients} are taken")
        return found

    def as_json(self) -> dict[str, Any]:
        route = self.explanation.route
        lane = self.loaded.config.lanes[route.lane]
        limits = self.loaded.config.limits
        signs = self.dkim()
        return {
            "lane": route.lane,
            "rule": route.rule,
            "earlier": [{"rule": step.rule, "why_not": list(step.reasons)} for step in self.explanation.earlier],
            "upstreams": list(route.upstreams),
            "sender": self.facts.sender,
            "recipients": list(self.facts.recipients),
            "client": self.facts.client,
            "listener": self.facts.listener,
            "size": self.size_bytes,
            "dkim": None if signs is None else {"domain": signs[0], "selectors": list(signs[1])},
            "expires_ms": round(lane.expires_s * 1000),
            "limits": {
                "message_size": limits.message_size_bytes,
                "recipients": limits.recipients,
                "per_recipient": [_limit(one.count, one.period_s) for one in lane.limits.per_recipient],
                "per_client": [_limit(one.count, one.period_s) for one in lane.limits.per_client],
                "resend_after_ms": None if lane.limits.resend_after_s is None else lane.limits.resend_after_s * 1000,
            },
            "refused": self.refusals(),
        }

    def as_text(self) -> str:
        route = self.explanation.route
        lane = self.loaded.config.lanes[route.lane]
        signs = self.dkim()
        why = f"rule {route.rule}" if route.rule is not None else "no rule matched: the default lane"
        if self.facts.listener_lane is not None:
            why = f"pinned by listener {self.facts.listener}"
        lines = [f"lane       {route.lane} ({why})"]
        for step in self.explanation.earlier:
            lines += [f"not        {step.rule}: {reason}" for reason in step.reasons]
        lines.append(f"upstreams  {', '.join(route.upstreams)}")
        lines.append(f"from       {self.facts.sender or '<>'}")
        lines.append(f"to         {', '.join(self.facts.recipients) or 'nobody'}")
        lines.append("signed     " + (f"{signs[0]}: {', '.join(signs[1])}" if signs else "no"))
        lines.append(f"expires    {_spoken(lane.expires_s)} after the final dot")
        limits = [f"{_spoken_limit(one.count, one.period_s)} a recipient" for one in lane.limits.per_recipient]
        limits += [f"{_spoken_limit(one.count, one.period_s)} a client" for one in lane.limits.per_client]
        lines.append(f"limits     {', '.join(limits) or 'none'}")
        lines += [f"refused    {refusal}" for refusal in self.refusals()]
        return "\n".join(lines)


def _limit(count: int, period_s: float) -> dict[str, float]:
    return {"count": count, "period_ms": period_s * 1000}


def _spoken_limit(count: int, period_s: float) -> str:
    return f"{count} in {_spoken(period_s)}"


def _spoken(seconds: float) -> str:
    """600.0 → 10m"""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"
