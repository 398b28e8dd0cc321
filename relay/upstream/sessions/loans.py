"""Which tasks use which session of a pool."""

from __future__ import annotations

import asyncio
from typing import Any, Generic

from relay.upstream.sessions.kept import S


class Loans(Generic[S]):
    """A session may be lent to several tasks, each for one message. A promise is a loan whose task has yet to run. The
    length is the number of loans and promises."""

    def __init__(self) -> None:
        self._users: dict[S, list[asyncio.Task[Any] | None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._users.values()))

    def count(self, session: S) -> int:
        """Its loans and promises."""
        return len(self._users.get(session, ()))

    def promise(self, session: S) -> None:
        self._users.setdefault(session, []).append(None)

    def lend(self, session: S) -> None:
        """To the current task, in place of a promise if there is one."""
        users = self._users.setdefault(session, [])
        if None in users:
            users.remove(None)
        users.append(asyncio.current_task())

    def end(self, session: S, *, promised: bool = False) -> None:
        """The current task's loan is over, or a promise can't be kept."""
        users = self._users.get(session, [])
        user = None if promised else asyncio.current_task()
        if user in users:
            users.remove(user)
        elif users and not promised:
            users.pop()  # it was lent in another task
        if not users:
            self.forget(session)

    def forget(self, session: S) -> None:
        """The session has gone."""
        self._users.pop(session, None)

    def are_over(self, session: S) -> bool:
        """No task uses it that still runs."""
        return all(user is None or user.done() for user in self._users.get(session, ()))
