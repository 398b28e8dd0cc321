"""Check the limits of a lane: what has no effect where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from relay.config.errors import Diagnostic, Loc, note
from relay.config.model import Lane

_COUNTED = ("per_recipient", "per_client", "per_sender", "resend_after_s")
_EXPRESS = ("express_budget", "look_alikes", "list_unsubscribe")


def check(loc: Loc, lane: Lane, *, is_default: bool) -> Iterator[Diagnostic]:
    """`loc`: of `limits`. `is_default`: it is the default lane."""
    limits = lane.limits
    given = limits.model_fields_set
    if limits.action == "demote" and is_default:
        yield Diagnostic((*loc, "action"), "demote has no lane to go to: this is the default lane")
    if "action" in given and not any(getattr(limits, name) for name in _COUNTED):
        yield note((*loc, "action"), "has no effect: nothing is limited")
    if limits.fold_tags and not (limits.per_recipient or limits.resend_after_s):
        yield note((*loc, "fold_tags"), "has no effect without per_recipient and resend_after")
    for key in _EXPRESS:
        if key in given and (is_default or not lane.express):
            why = "this is the default lane" if is_default else "the lane isn't express"
            yield note((*loc, key), f"has no effect: {why}")
