"""An upstream that is an ESP's HTTP API: `send` finds a connection and makes one request.

The request's last byte is the final dot: the gate is asked right before the request leaves, and an answer that doesn't
come leaves the outcome unknown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

from relay.config.model import Upstream as Config
from relay.mail.outcome import Outcome
from relay.mail.reply import Reply
from relay.providers.api import Credentials, Verdict
from relay.providers.apis.registry import api_named
from relay.upstream.attempt import Report, Terms
from relay.upstream.gate import Gate
from relay.upstream.http.carrier import Carrier
from relay.upstream.http.connect import open_connection
from relay.upstream.http.connection import Exchange, HttpConnection
from relay.upstream.http.lessons import learn, was_dead
from relay.upstream.http.outcome import judged, results, unanswered
from relay.upstream.http.request import Carried, carried, idempotency_key, request, seen, seen_now
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Finish, Load
from relay.upstream.phases import Phases
from relay.upstream.results import Result
from relay.upstream.sessions.kept import Opening
from relay.upstream.sessions.upstream import PooledUpstream, record_opening
from relay.upstream.sessions.waiters import Wants
from relay.upstream.standing import Watcher
from relay.upstream.target import ApiEndpoint, Target

MAX_TRIES = 3
"""requests of one attempt, where kept connections turn out to be dead or credentials to be old"""
PAUSED = Reply.own(450, "4.7.1", "too many requests: the API asked for a pause")


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

    def most_recipients(self, load: Load) -> int:
        """All of them where the message names them: several requests would each show the others."""
        return max(1, len(load.recipients)) if self.api.form == "json" else self.api.recipients

    async def why_not(self, load: Load) -> str | None:
        """Why the API can't carry the message; None: it can."""
        found = await seen(load, self.config, self.finish)
        return found if isinstance(found, str) else None

    def why_not_now(self, load: Load) -> str | Literal[False] | None:
        """As `why_not`. False: to find out would hold up the event loop."""
        found = seen_now(load, self.config, self.finish)
        return False if found is None else found if isinstance(found, str) else None

    async def _carry(self, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases) -> Report:
        key = load.repeat_key or idempotency_key(load)
        errand = _Errand(load, gate, terms, deadline, phases, phases.at, key)
        one = await carried(load, self.config, self.finish)
        if isinstance(one, str):
            reply = Reply.own(554, "5.6.1", f"the API can't carry it: {one}")
            phases.until(time.monotonic(), "session")
            return self._report(errand, _same(load, "refused", reply), "none")
        credentials = await self._endpoint.credentials.current()
        wants: Wants = "own" if terms.own_session else "any"
        tries = 0
        while True:
            tries += 1
            connection, is_new = await self._session(deadline, wants)
            session: Literal["new", "warm"] = "new" if is_new else "warm"
            record_opening(phases, time.monotonic(), connection.opening if is_new else Opening())
            before = phases.copy()
            exchange = await self._exchange(connection, one, credentials, errand)
            if isinstance(exchange, Reply):
                return self._report(errand, _same(load, "abandoned", exchange), session)
            may_repeat = tries < MAX_TRIES and time.monotonic() < deadline
            if may_repeat and not is_new and was_dead(exchange):
                errand.begin_again()
                phases.restore(before)
                phases.until(exchange.ended_at, "session")
                wants = "new"
                continue
            verdict = judged(exchange, self.api, one.mail, time.time())
            if exchange.answer is not None:
                errand.codes += (exchange.answer.status,)
            renewed = await self._renewed(verdict, credentials) if may_repeat else None
            if renewed is not None:
                errand.begin_again()
                credentials = renewed
                continue
            if verdict is None:
                found = unanswered(exchange, load.recipients)
            else:
                found = results(verdict, load.recipients, self.config, credentials.secrets())
            learn(self, exchange, verdict, found, load, terms.progress, is_new=is_new)
            return self._report(errand, found, session)

    async def _exchange(
        self, connection: HttpConnection, one: Carried, credentials: Credentials, errand: _Errand
    ) -> Exchange | Reply:
        """The request over this connection, once the gate is open; a reply: the gate didn't let it through."""
        carrier, gate, terms = Carrier(), errand.gate, errand.terms
        try:
            if self.circuit.is_paused(time.monotonic()):
                return PAUSED  # asked for since this attempt began
            refusal = await carrier.passes(gate, errand.deadline, needs_mark=not self.repeats_for_s)
            errand.phases.until(time.monotonic(), "gate")
            if refusal is not None:
                return refusal
            where = self._endpoint.server.where
            head, body = await request(one, self.api, where, credentials, errand.key, time.time())
            terms.progress.asked = terms.progress.content_sent = True
            exchange = await connection.exchange(
                head, body, deadline=errand.deadline, final_s=terms.final_s, stop=carrier.stopped
            )
            errand.phases.until(exchange.ended_at, "data")
            return exchange
        finally:
            gate.ended(carrier)
            self.pool.release(connection)

    async def _renewed(self, verdict: Verdict | None, refused: Credentials) -> Credentials | None:
        """Other credentials, where these were refused and may have ended before their time."""
        if verdict is None or any(found.kind != "account" for found in verdict.found):
            return None
        return await self._endpoint.credentials.renewed(refused)

    def _report(self, errand: _Errand, found: tuple[Result, ...], session: Literal["new", "warm", "none"]) -> Report:
        return Report(
            *(self.name, errand.started_at, session, found, errand.phases.ms, errand.codes),
            via="api",
            knows_for_s=self.repeats_for_s,
            key=errand.key,
            is_signed=self.finish.is_signed,
        )


@dataclass(slots=True)
class _Errand:
    """One attempt under way."""

    load: Load
    gate: Gate
    terms: Terms
    deadline: float
    """time.monotonic: of all that precedes the request's last byte"""
    phases: Phases
    started_at: float
    key: str
    """for idempotency"""
    codes: tuple[int, ...] = ()

    def begin_again(self) -> None:
        """Nothing of it was accepted: another request may leave."""
        self.gate.reopen()
        self.terms.progress.again()


def _same(load: Load, outcome: Outcome, reply: Reply) -> tuple[Result, ...]:
    """The same for each recipient; nothing has left."""
    return tuple(Result(position, outcome, reply, "mail") for position, _ in load.recipients)


def finish_of(config: Config) -> Finish:
    """How contents are finished for an API."""
    api = api_named(config.api.kind or "")
    is_signed = api.form == "raw" and api.keeps_signature
    finish = Finish.of(config)
    return finish._replace(unsigned=finish.unsigned | api.rewrites, taken_out=api.steering, is_signed=is_signed)
