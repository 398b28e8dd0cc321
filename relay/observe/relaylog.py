"""One function for each event of the relay itself: it moves the metrics and writes one line.

Lines are logfmt on the logger `relay.mail`. They never contain an address, a subject, a reply's text (it may quote
either), content or a credential.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Sequence

from relay.logfmt import LongText, logfmt
from relay.observe.metrics import Metrics

_ADDRESS = re.compile(r"[^\s<>]*@[^\s<>]*")


class RelayLog:
    """Events of upstreams, background tasks, workers and reloads. Also the upstreams' watcher."""

    def __init__(self, metrics: Metrics, logger: logging.Logger | None = None) -> None:
        self.metrics = metrics
        self._logger = logger or logging.getLogger("relay.mail")

    def down(self, lane: str, upstream: str, reason: str) -> None:
        """The lane's circuit to the upstream is open."""
        self.line(logging.WARNING, "upstream_down", lane=lane, upstream=upstream, reason=_without_addresses(reason))

    def up(self, lane: str, upstream: str) -> None:
        """The lane's circuit to the upstream is closed again."""
        self.line(logging.INFO, "upstream_up", lane=lane, upstream=upstream)

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        """The upstream closes idle sessions at once, so none is kept open."""
        closed = f"{after_s * 1000:.0f}ms"
        self.line(logging.WARNING, "sessions_on_demand", lane=lane, upstream=upstream, closed_after=closed)

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        """The upstream can't take several messages on a session."""
        self.line(logging.WARNING, "one_message_at_a_time", lane=lane, upstream=upstream, reason=reason)

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        """With `via: auto`: the upstream's API or its SMTP server is down; mail goes by the other."""
        reason = _without_addresses(reason)
        self.line(logging.WARNING, "upstream_way_down", lane=lane, upstream=upstream, way=way, reason=reason)

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        """That one is back."""
        self.line(logging.INFO, "upstream_way_up", lane=lane, upstream=upstream, way=way)

    def no_credentials(self, upstream: str, reason: str) -> None:
        """A token, or temporary credentials of an upstream, couldn't be fetched. Those that it has are used until they
        expire."""
        self.line(logging.WARNING, "no_credentials", upstream=upstream, reason=_without_addresses(reason))

    def trouble(self, where: str, error: BaseException) -> None:
        """An internal operation failed; the mail that it was about waits. The error's text is the relay's or the
        system's, never an app's."""
        name, reason = type(error).__name__, _without_addresses(str(error))
        self.line(logging.ERROR, "trouble", where=where, error=name, reason=reason)

    def task_ended(self, task: str, error: BaseException | None) -> None:
        """A background task ended by `error`, or returned (None), and is restarted. The error's text may be mail."""
        self.metrics.restarts[(task.partition(" ")[0],)].inc()
        name = "returned" if error is None else type(error).__name__
        self.line(logging.ERROR, "task_restarted", task=task, error=name)

    def loop_failed(self, where: str, error: BaseException | None) -> None:
        """A callback of the event loop failed, or a task that nothing awaits."""
        self.metrics.restarts[("loop",)].inc()
        name = None if error is None else type(error).__name__
        system = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
        self.line(logging.ERROR, "loop_failed", error=name, errno=system, where=where)

    def started(self, version: str, store: str, lanes: Sequence[str], waiting: int) -> None:
        """The relay accepts mail. `waiting`: recipients of earlier mail that aren't finished."""
        self.line(logging.INFO, "started", version=version, store=store, lanes=",".join(lanes), waiting=waiting)

    def worker_ready(self, number: int) -> None:
        """A worker process accepts bulk mail."""
        self.line(logging.INFO, "worker_ready", worker=number)

    def feedback_ready(self) -> None:
        """The feedback process takes webhooks and posts events."""
        self.line(logging.INFO, "feedback_ready")

    def stopping(self) -> None:
        """The relay takes no more mail and finishes what is under way."""
        self.line(logging.INFO, "stopping")

    def stopped(self, *, sessions_cut: int, deliveries_cut: int) -> None:
        """The relay has ended. `..._cut`: clients' sessions and deliveries that took longer than `shutdown`."""
        level = logging.WARNING if sessions_cut or deliveries_cut else logging.INFO
        self.line(level, "stopped", sessions_cut=sessions_cut, deliveries_cut=deliveries_cut)

    def adopted(self, lane: str, recipients: int) -> None:
        """Waiting mail of lanes that the configuration doesn't have any more now belongs to the default lane."""
        self.line(logging.WARNING, "adopted", lane=lane, recipients=recipients)

    def reloaded(self, *, success: bool, ignored: Sequence[str] = ()) -> None:
        """The configuration was read again. Without success the old one stays in force. `ignored`: changed keys that
        need a restart; the rest of the new configuration is in force."""
        complete = success and not ignored
        self.metrics.reload_success.set(complete)
        level = logging.ERROR if not success else logging.WARNING if ignored else logging.INFO
        self.line(level, "reloaded", success=complete, ignored=",".join(ignored) or None)

    def redirected(self) -> None:
        """By the configuration that comes into force, all mail goes to one address instead of its recipients."""
        self.line(logging.WARNING, "redirect", reason=LongText("all mail goes to the redirect address"))

    def line(self, level: int, event: str, **values: object) -> None:
        """Write one line, if the logger takes that level."""
        if self._logger.isEnabledFor(level):
            self._logger.log(level, logfmt(event, **values))


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("<address>", text)
