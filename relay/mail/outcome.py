"""What became of a recipient in one attempt, and by what way."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["sent", "deferred", "refused", "ambiguous", "abandoned"]
"""`abandoned`: the final dot was never sent, and no reply was about the recipient"""
SessionKind = Literal["warm", "new", "none"]
"""`none`: no session could be had"""
Via = Literal["smtp", "api"]
