"""The console's paths. Pure, since the guard asks before anything is loaded for a page."""

from __future__ import annotations

STATIC = "/static/"
MESSAGE = "/m/"
ICON = "/favicon.ico"
VIEWS = frozenset({"/", "/queue", "/upstreams", "/suppressions", "/limits", "/report", "/configuration"})
"""those of the views, besides `/m/ID`; the script on the page shows the one that was asked for"""


def is_page(path: str) -> bool:
    """Whether the path is one of the console's views or files, which show no message."""
    return path in VIEWS or path == ICON or path.startswith((STATIC, MESSAGE))
