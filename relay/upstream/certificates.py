"""When an upstream's certificates end, as its connections have shown them."""

from __future__ import annotations


class CertificateEnds:
    """Of one upstream: one certificate for each way to it."""

    def __init__(self) -> None:
        self._ends_at: dict[str, float] = {}
        """by way; seconds since the epoch"""

    def note(self, way: str, ends_at: float | None) -> None:
        """A connection was opened. `ends_at`: of its certificate; None: it has none."""
        if ends_at is not None:
            self._ends_at[way] = ends_at

    @property
    def first(self) -> float | None:
        """When the first of them ends; None: none was seen."""
        return min(self._ends_at.values(), default=None)
