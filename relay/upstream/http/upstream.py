"""An upstream that is an ESP's HTTP API: `send` finds a connection and makes one request.

The request's last byte is the final dot: the gate is asked right before the request leaves, and an answer that doesn't
come leaves the outcome unknown.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Literal

from relay.clock import steady
from relay.config.model import Upstream as Config
from relay.mail.redact import redact, redact_reply
from relay.mail.reply import Reply
from relay.providers.api import Credentials, Kind, Verdict
from relay.providers.apis.registry import api_named
from relay.upstream.attempt import Report, Terms
from relay.upstream.gate import Gate
from relay.upstream.http.connect import open_connection
from relay.upstream.http.connection import Exchange, HttpConnection
from relay.upstream.http.outcome import judged, results, unanswered
from relay.upstream.http.request import Carried, carried, request, seen, seen_now
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Finish, Load
from relay.upstream.phases import Phases
from relay.upstream.results import TIMED_OUT, OpenFailed, Result
from relay.upstream.sessions.kept import Opening
from relay.upstream.sessions.upstream import PooledUpstream, record_opening
from relay.upstream.sessions.waiters import Wants
from relay.upstream.standing import Watcher
from relay.upstream.target import ApiEndpoint, Target

DEFAULT_PAUSE_S = 1.0
"""after a 429 that doesn't say how long"""
MAX_TRIES = 3
"""requests of one attempt, where kept connections turn out to be dead"""
_PAUSED = Reply.own(450, "4.7.1", "too many requests: the API asked for a pause")
TIMED_UP_TO_BYTES = 65_536
"""The answer to a larger content is late because of its way there."""


class HttpUpstream(PooledUpstream[HttpConnection]):
    """One API as one lane uses it, over connections of its own."""

    via: Literal["smtp", "api"] = "api"

    def __init__(
        self,
        lane: str,
        target: Target,
        limits: UpstreamLimits,
        *,
        express: bool,
        open_within_s: float,
        watcher: Watcher,
    ) -> None:
        super().__init__(lane, target, limits, express=express, open_within_s=open_within_s, watcher=watcher)
        self.pool.depth.limit_to_one()
        self.api = api_named(self.config.api.kind or "")
        self.repeats_for_s = self.api.idempotent_s
        self.finish = finish_of(self.config)

    @property
    def _endpoint(self) -> ApiEndpoint:
        if self._target.api is None:
            raise AssertionError("an upstream without its API")
        return self._target.api

    async def _open(self, within_s: float) -> HttpConnection:
        # So no code waits for the first token, and an upstream without credentials is down before it is asked.
        await self._endpoint.credentials.current()
        return await open_connection(self._endpoint.server, timeout_s=within_s, express=self.express)

    def _followed_by(self, target: Target) -> Target:
        if target.api is None:
            return target
        server = replace(target.api.server, addresses=self._endpoint.server.addresses)
        return replace(target, api=replace(target.api, server=server))

    def most_recipients(self, load: Load) -> int:  # noqa: ARG002
        return self.api.recipients

    async def why_not(self, load: Load) -> str | None:
        """Why the API can't carry the message; None: it can."""
        found = await seen(load, self.api, self.finish)
        return found if isinstance(found, str) else None

    def why_not_now(self, load: Load) -> str | Literal[False] | None:
        """As `why_not`. False: to find out would hold up the event loop."""
        found = seen_now(load, self.api, self.finish)
        return False if found is None else found if isinstance(found, str) else None

    async def _carry(self, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases) -> Report:
        started_at = phases.at
        one = await carried(load, self.api, self.finish)
        if isinstance(one, str):
            reply = Reply.own(554, "5.6.1", f"the API can't carry it: {one}")
            unfit = tuple(Result(position, "refused", reply, "mail") for position, _ in load.recipients)
            phases.until(time.monotonic(), "session")
            return Report(self.name, started_at, "none", unfit, phases.ms, via="api")
        credentials = await self._endpoint.credentials.current()
        wants: Wants = "own" if terms.own_session else "any"
        codes: tuple[int, ...] = ()
        for last in (False,) * (MAX_TRIES - 1) + (True,):
            connection, is_new = await self._session(deadline, wants)
            record_opening(phases, time.monotonic(), connection.opening if is_new else Opening())
            before = phases.copy()
            exchange = await self._exchange(connection, one, credentials, gate, terms, deadline, phases)
            if isinstance(exchange, Reply):
                withdrawn = tuple(Result(position, "abandoned", exchange, "mail") for position, _ in load.recipients)
                return Report(self.name, started_at, _kind(is_new), withdrawn, phases.ms, codes, via="api")
            was_dead = exchange.answer is None and not exchange.is_complete and not is_new
            if was_dead and not last and exchange.end == "lost" and time.monotonic() < deadline:
                gate.reopen()
                terms.progress.again()
                phases.restore(before)
                phases.until(exchange.ended_at, "session")
                wants = "new"
                continue
            verdict = judged(exchange, self.api, one.mail, time.time())
            codes = (*codes, *(() if exchange.answer is None else (exchange.answer.status,)))
            renewed = await self._renewed(verdict, credentials) if not last else None
            if renewed is not None and time.monotonic() < deadline:
                credentials = renewed
                gate.reopen()
                terms.progress.again()
                continue
            report = self._report(load, verdict, exchange, credentials, phases, codes, started_at, is_new=is_new)
            self._learn(verdict, exchange, terms, load, report, is_new=is_new)
            return report
        raise AssertionError("unreachable")

    async def _exchange(
        self,
        connection: HttpConnection,
        one: Carried,
        credentials: Credentials,
        gate: Gate,
        terms: Terms,
        deadline: float,
        phases: Phases,
    ) -> Exchange | Reply:
        """The request over this connection, once the gate is open; a reply: the gate didn't let it through."""
        carrier = _Carrier()
        try:
            if self.circuit.is_paused(time.monotonic()):
                return _PAUSED  # asked for since this attempt began
            refusal = await carrier.passes(gate, deadline)
            phases.until(time.monotonic(), "gate")
            if refusal is not None:
                return refusal
            head, body = await request(one, self.api, self._endpoint.server.where, credentials, time.time())
            terms.progress.asked = terms.progress.content_sent = True
            exchange = await connection.exchange(
                head, body, deadline=deadline, final_s=terms.final_s, stop=carrier.stopped
            )
            phases.until(exchange.ended_at, "data")
            return exchange
        finally:
            gate.ended(carrier)
            self.pool.release(connection)

    async def _renewed(self, verdict: Verdict | None, refused: Credentials) -> Credentials | None:
        """Other credentials, where these were refused and may have ended before their time."""
        if verdict is None or any(found.kind != "account" for found in verdict.found):
            return None
        return await self._endpoint.credentials.renewed(refused)

    def _report(
        self,
        load: Load,
        verdict: Verdict | None,
        exchange: Exchange,
        credentials: Credentials,
        phases: Phases,
        codes: tuple[int, ...],
        started_at: float,
        *,
        is_new: bool,
    ) -> Report:
        if verdict is None:
            found = unanswered(exchange, load.recipients)
        else:
            found = results(verdict, load.recipients, self.config, credentials.secrets())
        return Report(
            *(self.name, started_at, _kind(is_new), found, phases.ms, codes),
            via="api",
            knows_for_s=self.repeats_for_s,
        )

    def _learn(
        self, verdict: Verdict | None, exchange: Exchange, terms: Terms, load: Load, report: Report, *, is_new: bool
    ) -> None:
        """What the answer says about the API, beyond this message."""
        if verdict is None:
            if exchange.end == "timed out":
                self.timed_out(terms.progress)
            elif exchange.end != "stopped" and (exchange.is_complete or is_new):
                self.connection_lost()
            return
        kinds: set[Kind] = {found.kind for found in verdict.found}
        text = verdict.found[0].text if verdict.found else ""
        if "account" in kinds:
            refused = next(result.reply for result in report.results if result.phase == "auth")
            # The reply may quote the mail.
            quoted = redact(redact_reply(refused.text, load.original))
            self.condemn(OpenFailed("auth", refused._replace(text=quoted), from_upstream=True))
        elif "throttled" in kinds:
            self.throttled(DEFAULT_PAUSE_S if verdict.retry_after_s is None else verdict.retry_after_s)
        elif kinds & {"unavailable"}:
            self.failed_once(OpenFailed("session", Reply.own(451, "4.3.0", text.partition(":")[0] or "unavailable")))
        elif "unknown" in kinds:
            self.connection_lost()
        elif "in_progress" not in kinds:
            self.answered()
        if "sent" in kinds and not self.express:
            reply_s = exchange.ended_at - exchange.left_at if len(load.original) <= TIMED_UP_TO_BYTES else None
            self.window.succeeded(time.monotonic(), self.counts()["busy"], reply_s)


def finish_of(config: Config) -> Finish:
    """How contents are finished for an API."""
    api = api_named(config.api.kind or "")
    is_signed = api.form == "raw" and api.keeps_signature
    return Finish.of(config)._replace(taken_out=api.steering, is_signed=is_signed)


class _Carrier:
    """Waits at a message's gate (`relay.upstream.gate.Carrier`)."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._moved = asyncio.Event()

    def proceed(self) -> None:
        self._moved.set()

    def stop(self) -> None:
        self.stopped.set()

    async def passes(self, gate: Gate, deadline: float) -> Reply | None:
        """None: the request may leave. A reply: why not. `deadline`: time.monotonic."""
        while (answer := gate.ask(self, steady())) == "wait":
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._moved.wait()
            except TimeoutError:
                return TIMED_OUT
            self._moved.clear()
        return None if answer == "go" else gate.reason()


def _kind(is_new: bool) -> Literal["new", "warm"]:
    return "new" if is_new else "warm"
