"""The ids of a message's trace, and whether it is recorded. Each process of the relay comes to the same result by
itself: from the message's id, and from the app's traceparent if it gave one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, Self

from relay.mail import traceparent

# An id is a ULID: 48 bits of time, 80 of randomness, in Crockford's base 32. Python reads 0-9A-V.
_DIGITS = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "0123456789ABCDEFGHIJKLMNOPQRSTUV")
_LOW_64 = (1 << 64) - 1


@lru_cache(maxsize=256)
def trace_of(message_id: str, parent: str | None) -> str:
    """The trace id, 32 hexadecimal digits: the app's, else the message's id as a number."""
    if parent is not None:
        return traceparent.trace_id(parent)
    try:
        number = int(message_id.translate(_DIGITS), 32)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 128 or len(message_id) != 26:  # it isn't from this relay
        return blake2b(message_id.encode(), digest_size=16).hexdigest()
    return f"{number:032x}"


def root_span_of(message_id: str) -> str:
    """The id of its span `relay.message`, 16 hexadecimal digits."""
    return blake2b(message_id.encode(), digest_size=8).hexdigest()


class Sampling(NamedTuple):
    """Which traces are recorded: OTEL_TRACES_SAMPLER, as OpenTelemetry's SDK reads it."""

    share: float = 1.0
    """of the traces that no app decides about; from 0 to 1"""
    follows_app: bool = True
    """a trace of an app's is recorded if the app records it"""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """A sampler that isn't one of the standard's is the SDK's business: here all is recorded."""
        name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
        follows_app = name.startswith("parentbased_")
        match name.removeprefix("parentbased_"):
            case "always_off":
                return cls(0.0, follows_app)
            case "traceidratio":
                return cls(_share(environ.get("OTEL_TRACES_SAMPLER_ARG", "")), follows_app)
            case "always_on":
                return cls(1.0, follows_app)
            case _:
                return cls(1.0, follows_app=False)

    def records(self, message_id: str, parent: str | None) -> bool:
        """Whether the message's trace is recorded."""
        if parent is not None and self.follows_app:
            return traceparent.is_sampled(parent)
        if self.share in (0.0, 1.0):
            return self.share == 1.0
        return int(trace_of(message_id, parent), 16) & _LOW_64 < round(self.share * (1 << 64))


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        return 1.0
    return share if 0.0 <= share <= 1.0 else 1.0
