"""The types of configuration fields, and the class of all sections.

Each type says how the file writes its values: see `parse`, `network` and `rate_limit`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from relay.config.mail_address import parse_mail_address
from relay.config.network import AnyAddress, parse_address, parse_network
from relay.config.parse import (
    parse_duration,
    parse_duration_or_zero,
    parse_flag,
    parse_header_name,
    parse_path,
    parse_rate,
    parse_share,
    parse_size,
    parse_store,
    parse_warm,
    parse_workers,
    whole,
)
from relay.config.rate_limit import CountPer, parse_budget, parse_rate_limit

_T = TypeVar("_T")


def _as_tuple(value: Any) -> Any:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _as_tuple_of_mappings(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value


OneOrMany = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]
"""One value or a list of them, as a tuple."""
OneOrManyMappings = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple_of_mappings)]
"""One mapping or a list of them, as a tuple."""

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""seconds, more than 0"""
DurationOrZero = Annotated[float, BeforeValidator(parse_duration_or_zero)]
"""seconds"""
Size = Annotated[int, BeforeValidator(parse_size)]
"""bytes"""
Rate = Annotated[float, BeforeValidator(parse_rate)]
"""a second"""
Share = Annotated[float, BeforeValidator(parse_share)]
"""more than 0, less than 1"""
RateLimit = Annotated[CountPer, BeforeValidator(parse_rate_limit)]
Budget = Annotated[CountPer, BeforeValidator(parse_budget)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
Address = Annotated[AnyAddress, BeforeValidator(parse_address)]
Count = Annotated[int, BeforeValidator(whole(1, 10**9 - 1, "a number of at least 1"))]
WarmSessions = Annotated[int | Literal["auto"], BeforeValidator(parse_warm)]
Depth = Annotated[int, BeforeValidator(whole(1, 8, "a number from 1 to 8"))]
Port = Annotated[int, BeforeValidator(whole(1, 65535, "a port number from 1 to 65535"))]
Priority = Annotated[int, BeforeValidator(whole(-9, 9, "a priority from -9 to 9"))]
Workers = Annotated[int | Literal["auto"], BeforeValidator(parse_workers)]
Flag = Annotated[bool, BeforeValidator(parse_flag)]
HeaderName = Annotated[str, BeforeValidator(parse_header_name)]
MailAddress = Annotated[str, BeforeValidator(parse_mail_address)]
DomainName = Annotated[str, AfterValidator(str.lower)]
FilePath = Annotated[Path, BeforeValidator(parse_path)]
StorePath = Annotated[Path, BeforeValidator(parse_store)]


class Section(BaseModel):
    """A mapping of the file. Unknown keys are refused, values keep their type, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)
