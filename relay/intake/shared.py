"""What the sessions of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from relay.intake.logins import Logins
from relay.intake.pace import Pace
from relay.intake.registry import SessionRegistry
from relay.intake.spool import Budget
from relay.intake.turns import Turns
from relay.intake.types import Admit, Observer, Settings, Submit


@dataclass(slots=True)
class Shared:
    """Settings, budgets and turns, and the ways out: `submit`, `admit`, `observer`."""

    settings: Settings
    submit: Submit
    admit: Admit
    observer: Observer
    registry: SessionRegistry
    budget: Budget
    """of contents in memory; past it they come in by files"""
    spool: Path | None = None
    """the folder of large contents while they come in; None: they stay in memory"""
    sealed: bool = False
    """files in `spool` are encrypted"""
    turns: Turns = field(default_factory=Turns)
    pace: Pace = field(default_factory=Pace)
    logins: Logins = field(default_factory=Logins)
    storing: int = 0
    """messages between their final dot and their reply"""
