"""The paths of the console, and of the API's description. Pure, since the guard asks before a page is loaded."""

from __future__ import annotations

STATIC = "/static/"
MESSAGE = "/m/"
ICON = "/favicon.ico"
OPENAPI = "/api/openapi.json"
VIEWS = frozenset({"/", "/queue", "/upstreams", "/suppressions", "/limits", "/report", "/configuration"})
"""those of the views, besides `/m/ID`; the script on the page shows the one that was asked for"""


def is_page(path: str) -> bool:
    """Whether a page or a file is there, which is the same in every relay and shows no message."""
    return path in VIEWS or path in (ICON, OPENAPI) or path.startswith((STATIC, MESSAGE))
