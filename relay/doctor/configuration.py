"""Checks of a loaded configuration and the files it names, for `otp-relay check` and the doctor."""

from __future__ import annotations

from collections.abc import Iterator

from relay.config.model import Loaded
from relay.config.private_keys import contradictions
from relay.doctor.finding import About, Finding
from relay.intake.users import UsersError, read_users


def check(loaded: Loaded) -> list[Finding]:
    """Problems of users files and DKIM keys. A failure keeps the relay from starting. Takes time for large keys."""
    hint = "otp-relay keygen makes another; publish it under a new selector"
    damaged = [About("config", "dkim").warn(text, hint) for text in contradictions(loaded.dkim_pems)]
    return [*_users(loaded), *damaged]


def summary(loaded: Loaded) -> str:
    """`1 listener, 2 upstreams, 2 lanes, 3 rules, 1 DKIM key`"""
    config = loaded.config
    counts = (
        (len(config.listen), "listener"),
        (len(config.upstreams), "upstream"),
        (len(config.lanes), "lane"),
        (len(config.rules), "rule"),
        (len(loaded.dkim_pems), "DKIM key"),
    )
    return ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)


def _users(loaded: Loaded) -> Iterator[Finding]:
    about = About("config", "users_file")
    unreadable = set()
    for number, listener in enumerate(loaded.config.listen):
        path = listener.users_file
        if listener.auth != "required" or path is None or path in unreadable:
            continue
        try:
            users = read_users(path)
        except UsersError as error:
            unreadable.add(path)
            yield about.fail(str(error), "otp-relay user add makes such a file")
            continue
        if not users:
            place = loaded.places.of("listen", number, "users_file")
            yield about.warn(f"{place}: no user yet, so nobody can log in; otp-relay user add NAME", "add a user")
