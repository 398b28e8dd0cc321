"""Posts to one receiver over HTTP, and what became of each. aiohttp's exceptions stop here."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

import aiohttp

from relay.feedback.receiver import Receiver
from relay.feedback.retry import Answer
from relay.store.events import Waiting

WITHIN_S = 10.0
"""from the connection to the response's status"""
KEPT_S = 4.0
"""A connection that is idle for longer is closed. Many servers close it after 5 s, and a post must not meet that."""
REST_WITHIN_S = 1.0
"""for the response's body, so that the connection can be kept"""
MAX_REST_BYTES = 16_384
MAX_RESULT = 120
"""characters"""


class HttpClient:
    """A context manager: keeps connections to the receiver, up to `connections`.

    TLS is verified. It follows no redirect, keeps no cookie, and asks no proxy.
    """

    def __init__(self, receiver: Receiver, connections: int) -> None:
        """Raises OSError or ssl.SSLError for an unreadable `ca_file`. Call it in the event loop."""
        self._receiver = receiver
        ca_file = receiver.ca_file
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEPT_S, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=WITHIN_S),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, post: Waiting, now: float) -> Answer:
        """One attempt. `now`: the machine's time of day."""
        headers = self._receiver.headers(post.event_id, now, post.body)
        try:
            async with self._session.post(
                self._receiver.url, data=post.body, headers=headers, allow_redirects=False
            ) as response:
                answer = Answer(str(response.status), response.status, _seconds(response.headers.get("retry-after")))
                await _discard(response)
                return answer
        except TimeoutError:
            return Answer("timeout")
        except aiohttp.ClientConnectorDNSError:
            return Answer("dns")
        except aiohttp.ClientConnectorCertificateError as error:
            return Answer(_certificate_fault(error.certificate_error))
        except (aiohttp.ClientSSLError, ssl.SSLError):
            return Answer("tls")
        except aiohttp.ClientConnectorError:
            return Answer("connect")
        except (aiohttp.ClientConnectionError, OSError):
            return Answer("connection_lost")
        except (aiohttp.ClientError, ValueError):
            return Answer("unreadable")


async def _discard(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again; a long or slow one costs the connection."""
    try:
        async with asyncio.timeout(REST_WITHIN_S):
            left = MAX_REST_BYTES
            while left > 0 and (data := await response.content.read(left)):
                left -= len(data)
            if left > 0:
                return
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        pass
    response.close()


def _certificate_fault(error: Exception) -> str:
    """`tls: certificate has expired`: a text of OpenSSL's."""
    text = getattr(error, "verify_message", "")
    return f"tls: {text}"[:MAX_RESULT] if text else "tls"


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After in seconds. A date isn't read: the ladder holds then."""
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
