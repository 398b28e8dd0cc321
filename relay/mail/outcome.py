"""What became of a recipient in one attempt."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["sent", "deferred", "refused", "ambiguous", "abandoned"]
"""`abandoned`: the final dot was never sent, and no reply was about the recipient"""
