"""Run an SMTP service, and send it any bytes. Each connection must end."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from tests.intake.harness import Service, listener, service

_REPLY = re.compile(rb"(?:[2-5][0-9]{2}[ -][^\r\n]*\r\n)*")
_ENDS_WITHIN_S = 20.0


class Door:
    """The service starts with the first client, in this thread, so that its processor time can be measured."""

    @cached_property
    def _runner(self) -> asyncio.Runner:
        return asyncio.Runner()

    @cached_property
    def _services(self) -> dict[str, Service]:
        return self._runner.run(self._started())

    async def _started(self) -> dict[str, Service]:
        self._faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._faults.append(context))
        self._open = AsyncExitStack()  # as long as the process runs
        listeners = {
            "plain": listener(),
            "login": listener(auth="any"),
            "proxied": listener(proxy_protocol=(ip_network("127.0.0.0/8"),)),
        }
        return {name: await self._open.enter_async_context(service(one)) for name, one in listeners.items()}

    def told(self, data: bytes) -> None:
        """As commands behind EHLO."""
        self._say("plain", b"EHLO client.test\r\n" + data)

    def login(self, data: bytes) -> None:
        """Where AUTH is offered."""
        self._say("login", b"EHLO client.test\r\n" + data)

    def proxied(self, data: bytes) -> None:
        """In front of the dialogue, as a proxy."""
        self._say("proxied", data)

    def _say(self, name: str, data: bytes) -> None:
        services = self._services
        answer = self._runner.run(_said(services[name].port, data))
        assert not self._faults, self._faults
        assert _REPLY.fullmatch(answer), answer[-200:]
        assert b"451" not in answer, answer
        services[name].recorder.taken.clear()


async def _said(port: int, data: bytes) -> bytes:
    """The replies until the connection ends, after writing `data` and closing the client's half."""
    async with asyncio.timeout(_ENDS_WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""  # it was closed while there was still something to read
        finally:
            writer.close()


DOOR = Door()
