"""The console: one page for all of its views, and the files that the page loads. Beside it the API's description."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from relay.web.paths import ICON, MESSAGE, OPENAPI, STATIC, VIEWS

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
DESCRIPTION = "openapi.json"
"""`python -m tools.generate` writes it"""


def routes() -> list[web.RouteDef]:
    names = frozenset(_names(_folder()))

    async def page(_: web.Request) -> web.Response:
        return await _file("index.html")

    async def icon(_: web.Request) -> web.Response:
        return await _file("icon.svg")

    async def static(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in names:  # so nothing outside of the folder is read
            raise web.HTTPNotFound(text="no such file")
        return await _file(name)

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=await _read(DESCRIPTION), content_type="application/json", charset="utf-8")

    views = [*sorted(VIEWS), MESSAGE + "{id}"]
    plain = [web.get(ICON, icon), web.get(STATIC + "{name:.+}", static), web.get(OPENAPI, openapi)]
    return [*(web.get(view, page) for view in views), *plain]


_bodies: dict[str, bytes] = {}
"""of the few files that there are, each read when a browser first asks, since a relay may never be asked"""


async def _file(name: str) -> web.Response:
    body = await _read(f"static/{name}")
    return web.Response(body=body, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8")


async def _read(path: str) -> bytes:
    if (body := _bodies.get(path)) is None:
        body = _bodies[path] = await asyncio.to_thread(files("relay.web").joinpath(*path.split("/")).read_bytes)
    return body


def _folder() -> Traversable:
    return files("relay.web").joinpath("static")


def _names(folder: Traversable, above: str = "") -> Iterator[str]:
    """The files in the folder and below it that a browser may load, as `views/queue.js`."""
    for one in folder.iterdir():
        if one.is_dir():
            yield from _names(one, f"{above}{one.name}/")
        elif one.name.rpartition(".")[2] in _TYPES:
            yield above + one.name
