"""The lists of states as SQL. They stand as in the schema, letter by letter: a partial index serves only a query
that repeats its condition."""

from __future__ import annotations

OPEN = "state IN ('queued', 'sending', 'deferred', 'held', 'ambiguous')"
FAILED = "state IN ('bounced', 'expired', 'superseded', 'suppressed')"
