"""What became of one transaction at an upstream."""

from __future__ import annotations

from typing import NamedTuple

from relay.upstream.results import Result


class TransactionReport(NamedTuple):
    """How a transaction went."""

    results: tuple[Result, ...]
    ended_at: float
    """time.monotonic; the three phases before it are all of the transaction"""
    answered: int = 0
    """replies that came: 0 on a lost session says that it was dead before"""
    timed_out: bool = False
    """the upstream left a command unanswered"""
    envelope_ms: float = 0.0
    """until the upstream was ready for the content"""
    gate_ms: float = 0.0
    """the content waited for its commit"""
    data_ms: float = 0.0
    codes: tuple[int, ...] = ()
    lost: bool = False
    """the connection broke off, or what came over it was no SMTP"""
    dsn: bool = False
    """the upstream took over the DSN parameters (RFC 3461), and with them the duty to report"""
    behind: bool = False
    """it began behind another transaction that wasn't over"""
    out_of_step: bool = False
    """the replies to a pipelined sequence were not what a server that reads ahead sends"""
    held_up: bool = False
    """it gave up behind another, whose content the upstream was slow to answer"""
    blames_pipelining: bool = False
    """a refusal says that messages behind each other are its reason"""
    shows_reading_ahead: bool = False
    """its envelope, behind another content, was answered before its own content left"""
