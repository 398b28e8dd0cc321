"""The phases of a message: they don't overlap, and reach from the app's final dot to the upstream's reply to ours."""

from __future__ import annotations

from relay.upstream.phases import PHASES, RARE_PHASES

MESSAGE_PHASES = ("accept", "earlier", "wait", *RARE_PHASES, *PHASES)
