"""Finds the places of a message's parts: in which lanes, when, and what of it counts; or why it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from relay.config.model import Config
from relay.intake.types import Refused
from relay.mail.envelope import Envelope
from relay.observe.maillog import MailLog
from relay.policy.check import Refuse, check_recipients
from relay.policy.limiter import Incoming, Limiter, Placement
from relay.policy.suppression import Suppressions
from relay.routing.router import RoutedPart, Router


class PlacedPart(NamedTuple):
    """The recipients of a message that share a route, and where they go; of most messages all of them."""

    envelope: Envelope
    """with these recipients only"""
    places: tuple[int, ...]
    """of these recipients in the message's envelope"""
    placement: Placement


class Placer:
    """Judges all parts of a message together: it is accepted with all of them, or refused as a whole."""

    def __init__(self, limiter: Limiter, suppressions: Suppressions, log: MailLog) -> None:
        self._limiter = limiter
        self._suppressions = suppressions
        self._log = log

    def place(
        self, config: Config, router: Router, routed: Sequence[RoutedPart], incoming: Incoming
    ) -> Sequence[PlacedPart]:
        """Find the place of each part, and count the message. `incoming`: with all recipients. The first of the parts
        is the entry: one in an express lane, if there is any. Raises Refused."""
        envelopes = [_narrowed(incoming.envelope, part.positions) for part in routed]
        asked = [
            (part.route, router.demoted(part.route), incoming._replace(envelope=envelope))
            for part, envelope in zip(routed, envelopes, strict=True)
        ]
        placements = self._limiter.place_all(config, asked)
        if isinstance(placements, Refuse):
            raise _refused(placements)
        parts = [
            PlacedPart(envelope, part.positions, placement)
            for envelope, part, placement in zip(envelopes, routed, placements, strict=True)
        ]
        self._check_recipients(config, parts, incoming)
        # The sort is stable: the part with the first recipient is the entry, unless another is express.
        return sorted(parts, key=lambda one: not config.lanes[one.placement.route.lane].express)

    def withdraw(self, parts: Sequence[PlacedPart]) -> None:
        """The message isn't stored: nothing of it counts."""
        self._limiter.withdraw(*(one.placement for one in parts))

    def _check_recipients(self, config: Config, parts: Sequence[PlacedPart], incoming: Incoming) -> None:
        """Raises Refused where each recipient is suppressed for the lane of its part."""
        refusals = list(self._refusals(config, parts, incoming))
        if len(refusals) < len(parts):
            return
        self.withdraw(parts)
        for one in parts:
            self._log.suppressed(incoming.id, one.placement.route.lane, recipients=len(one.places))
        raise _refused(refusals[0])

    def _refusals(self, config: Config, parts: Sequence[PlacedPart], incoming: Incoming) -> Iterator[Refuse]:
        """Up to the first part that has a recipient which may be mailed."""
        for one in parts:
            lane = config.lanes[one.placement.route.lane]
            decision = check_recipients(one.envelope, lane, self._suppressions, incoming.now)
            if not isinstance(decision, Refuse):
                return
            yield decision


def _narrowed(envelope: Envelope, positions: tuple[int, ...]) -> Envelope:
    if len(positions) == len(envelope.recipients):
        return envelope
    return envelope._replace(recipients=tuple(envelope.recipients[position] for position in positions))


def _refused(refuse: Refuse) -> Refused:
    return Refused(refuse.reply, refuse.reason, retry_after_s=refuse.retry_after_s)
