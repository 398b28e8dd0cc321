"""A name server on loopback, UDP and TCP, that answers TXT from a table."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

Entry = str | Sequence[str] | Literal["SILENT", "SERVFAIL"]
"""one TXT, several, or what happens instead of an answer"""


class NameServer:
    """`async with NameServer({"example.com": "v=spf1 -all"}) as server: Resolver(server.address)`"""

    def __init__(self, zone: Mapping[str, Entry], mx: Mapping[str, Sequence[str]] | None = None) -> None:
        """`mx`: of the names that have one in the zone, too: `10 mx.example.com`."""
        self.zone = dict(zone)
        self._mx = dict(mx or {})
        self.asked: Counter[tuple[str, str]] = Counter()
        """(transport, name)"""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.address: tuple[str, int] = ("127.0.0.1", int(self._tcp.sockets[0].getsockname()[1]))
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()

    def answer(self, query: dns.message.Message, transport: str) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked[transport, name] += 1
        entry = self.zone.get(name)
        if entry == "SILENT":
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if entry == "SERVFAIL":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif entry is None and not any(one.endswith(f".{name}") for one in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.MX and name in self._mx:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "MX", *self._mx[name]))
        elif entry is not None and question.rdtype == dns.rdatatype.TXT:
            texts = [entry] if isinstance(entry, str) else entry
            records = [_txt(text) for text in texts]
            if records:
                response.answer.append(dns.rrset.from_rdata_list(question.name, 60, records))
        return response

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            response = self.answer(dns.message.from_wire(await reader.readexactly(length)), "tcp")
            if response is not None:
                wire = response.to_wire(max_size=65535)
                writer.write(len(wire).to_bytes(2, "big") + wire)
                await writer.drain()
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        response = self.server.answer(query, "udp")
        if response is None:
            return
        if len(response.to_wire(max_size=65535)) > max(query.payload, 512):
            response.answer.clear()
            response.flags |= dns.flags.TC
        self.transport.sendto(response.to_wire(), addr)


def _txt(text: str) -> dns.rdtypes.ANY.TXT.TXT:
    raw = text.encode()
    strings = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
