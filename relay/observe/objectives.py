"""Which of a lane's recipients are counted for its objective by the process that settles them. Pure."""

from __future__ import annotations

from typing import NamedTuple, Self

from relay.config.model import Config


class Objective(NamedTuple):
    """A lane's objective, as far as the relay's own outcomes decide about it."""

    within_s: float
    """from the final dot"""
    reporting: frozenset[str]
    """upstreams that report deliveries: their events decide (`relay.feedback`)"""


class Objectives(dict[str, Objective]):
    """By lane; lanes without an objective aren't there."""

    @classmethod
    def of(cls, config: Config) -> Self:
        reporting = frozenset(name for name, upstream in config.upstreams.items() if upstream.webhook is not None)
        return cls(
            {
                name: Objective(lane.objective.within_s, reporting)
                for name, lane in config.lanes.items()
                if lane.objective is not None
            }
        )
