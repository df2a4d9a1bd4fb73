"""Connector `actility-http-iot`: one POST per uplink to a web server.

Wire:    the uplink's JSON as the body, over HTTP/1.1 links that stay open; a 2xx is the receipt.
Order:   the uplinks of one device follow each other, `maxParallel` devices go side by side.
Errors:  what an answer means for the retry stands in `answers`; redirects are not followed.
Proxy:   gets the request itself for http://, and opens a tunnel for https:// (RFC 9112, 3.2.2; RFC 9110, 9.3.6).
Source:  ThingPark X IoT Flow, "HTTP connector" (options, strict mode); RFC 9110 (answers), RFC 6585 (429).
"""

from __future__ import annotations

import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final, Self

import httpx
import trio
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from tpxd import __version__
from tpxd.config.fields import HeaderPattern, HexKey
from tpxd.config.secret import plain
from tpxd.connector import Context, Incoming, Outgoing, Receipts, Transport, connector
from tpxd.connectors.http.answers import Judge, refusal_hint, shown
from tpxd.connectors.http.excerpt import names_shown
from tpxd.connectors.parts.next_steps import naming_options
from tpxd.connectors.parts.tls import TlsConfig
from tpxd.errors import ConnectFailed, PatternError, TooSlow, TransportError, Unresolvable
from tpxd.lorawan.patterns import Pattern
from tpxd.lorawan.token import tunnel_query
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.http.answer import header_lines, is_token, request_head
from tpxd.wire.http.client import HttpClient, open_http_client
from tpxd.wire.proxy import Proxy
from tpxd.wire.streams import Endpoint

SHORTEST_SECRET: Final = 8
"""Shorter words of a header's value are no secrets, and masking them would garble what a server says."""

_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)

_NO_UPLINK = Uplink(0, 0, "none", "", "", b'{"none":{}}')


def _destination(value: object) -> httpx.URL:
    if isinstance(value, httpx.URL):
        return value
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ValueError('must begin with http:// or https://, such as "https://as.example.net/lora/in"')
    if "{" in value or "}" in value:
        raise ValueError("holds braces; fields such as {DevEUI} stand in headers, and a brace itself is %7B or %7D")
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL:
        raise ValueError('is no URL; write it as "https://as.example.net/lora/in"') from None
    if url.userinfo:
        raise ValueError(
            'holds a user name or a password; put them into headers, such as Authorization = { credential = "name" }'
        )
    if not url.host or b"%" in url.raw_host or (url.port is not None and not 1 <= url.port <= 65_535):
        raise ValueError('has no valid host name or port; write it as "https://as.example.net:8443/lora/in"')
    if url.fragment:
        raise ValueError("has a fragment, from # on, which is never sent; leave it out")
    return url


def _header_name(name: str) -> str:
    if not name.isascii() or not is_token(name.encode()):
        raise ValueError('is no name of a header; letters, digits and "-" are, such as X-Thing')
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by tpxd itself and cannot be set here")
    return name


DestinationUrl = Annotated[
    httpx.URL,
    PlainValidator(_destination),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "format": "uri", "pattern": "^https?://", "examples": ["https://as.example.net/lora/in"]}
    ),
]


class HttpConfig(TlsConfig):
    """The `[configuration]` of a connection over HTTP."""

    destinationURL: DestinationUrl = Field(description="Where each uplink is posted to, http:// or https://; required.")
    headers: dict[Annotated[str, AfterValidator(_header_name)], HeaderPattern] = Field(
        default_factory=dict,
        description="Headers of each request; values may be secrets, or hold fields such as {DevEUI}; default none.",
    )
    strictMode: bool = Field(
        False,
        description="true keeps an uplink that the server refuses and tries again, false gives it up; default false.",
    )
    lrcCompliance: bool = Field(
        False,
        description="true adds the query parameters with which the LRC itself posts (Basic HTTP); default false.",
    )
    tunnelInterfaceAuthenticationKey: HexKey | None = Field(
        None, description="With lrcCompliance: a key of 32 hex digits that signs each post with a Token; default none."
    )
    http2: bool = Field(
        False, description="Has no effect; it asked for HTTP/2, and HTTP/1.1 is used (tpxd's own key); default false."
    )
    maxParallel: int = Field(
        16,
        ge=1,
        le=64,
        description="How many devices' uplinks are posted side by side, 1 to 64 (tpxd's own key); default 16.",
    )

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, Pattern]) -> dict[str, Pattern]:
        seen: set[str] = set()
        for name in headers:
            if name.lower() in seen:
                raise ValueError("the name of a header is there twice; names differ by more than capitals")
            seen.add(name.lower())
        return headers

    @model_validator(mode="after")
    def _check_compliance(self) -> Self:
        if self.tunnelInterfaceAuthenticationKey is not None:
            if not self.lrcCompliance:
                raise ValueError("tunnelInterfaceAuthenticationKey has no effect without lrcCompliance = true")
            if not self.downlinkAsId:
                raise ValueError("tunnelInterfaceAuthenticationKey needs downlinkAsId, the AS_ID that is signed")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.has_useless_certificates(tls=self.destinationURL.scheme == "https"):
            raise ValueError("certificates have no effect with http://; write https:// or leave them out")
        return self

    @property
    def remarks(self) -> dict[str, str]:
        """See `ConnectorConfig.remarks`."""
        if "http2" not in self.model_fields_set:
            return super().remarks
        return super().remarks | {"http2": "has no effect: HTTP/1.1 is used; leave it out"}


@connector(
    "actility-http-iot",
    HttpConfig,
    title="HTTP",
    description="Posts each uplink as JSON to a URL",
)
@naming_options
@asynccontextmanager
async def open_http(config: HttpConfig, context: Context) -> AsyncIterator[Transport]:
    """Open a connection to the server of `destinationURL`; credentials go out with each request only."""
    proxy, tls = _hops(config, context)
    forwarder = proxy if tls is None else None
    endpoint = _endpoint(config.destinationURL, proxy, tls)
    connect_s, answer_s = config.connectionTimeout / 1000, config.actionTimeout / 1000
    async with open_http_client(
        endpoint, context.dial, connect_timeout_s=connect_s, answer_timeout_s=answer_s
    ) as client:
        yield HttpTransport(client, config, forwarder, context.proven)


def _hops(config: HttpConfig, context: Context) -> tuple[Proxy | None, ssl.SSLContext | None]:
    try:
        tls = config.tls_context(context.tls) if config.destinationURL.scheme == "https" else None
        return config.proxy_hop(context.tls), tls
    except ValueError as error:
        raise ConnectFailed(str(error)) from error


def _endpoint(url: httpx.URL, proxy: Proxy | None, tls: ssl.SSLContext | None) -> Endpoint:
    """Where links lead: with http:// the proxy gets the requests themselves, with https:// it opens a tunnel."""
    host = url.raw_host.decode("ascii")
    if tls is not None:
        return Endpoint(host, url.port or 443, tls, proxy=proxy)
    if proxy is not None:
        return Endpoint(proxy.host, proxy.port, proxy.tls, role="proxy")
    return Endpoint(host, url.port or 80)


class HttpTransport:
    """Posts batches; see `connector.Transport`."""

    def __init__(
        self, client: HttpClient, config: HttpConfig, forwarder: Proxy | None, proven: Callable[[], bool]
    ) -> None:
        self._client = client
        self._parallel = config.maxParallel
        self._judge = _judge(config, forwarder, proven)
        self._begin, self._end = _fixed_head(config, forwarder)
        self._head = self._begin + self._end
        self._comply = _compliance(config)
        self._patterns = [(name.encode(), value) for name, value in config.headers.items() if value.names]
        names = _names(self._head + header_lines([(name, b"") for name, _ in self._patterns]))
        self._place = f"headers {names_shown(names)}"

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """See `connector.Transport.send`; the first error ends it as soon as the requests under way have their end."""
        lanes = deque(_by_lane(batch))
        failures: list[TransportError] = []

        async def work() -> None:
            while lanes and not failures:
                for index in lanes.popleft():
                    if failures:
                        return
                    try:
                        await self._post(batch[index], index, receipts)
                    except TransportError as error:
                        failures.append(error)

        if len(lanes) == 1:
            await work()
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(min(self._parallel, len(lanes))):
                    nursery.start_soon(work)
        if failures:
            raise failures[0]

    async def _post(self, item: Outgoing, index: int, receipts: Receipts) -> None:
        try:
            head = self._head if self._comply is None else self._begin + self._comply(item.uplink) + self._end
            if self._patterns:
                head += header_lines(self._rendered(item))
        except Unresolvable as error:
            receipts.rejected(index, f"{error}, which a header asks for", error.hint)
            return
        except TooSlow as error:
            receipts.rejected(index, f"a header: {error}", error.hint)
            await trio.lowlevel.checkpoint()  # many of these in a row let others go on
            return
        except PatternError:
            # its text would show the pattern, which may hold a password
            receipts.rejected(index, "the uplink makes a header too long")
            return
        item.place = self._place
        answer = await self._client.post(head, item.body)
        refusal = self._judge(answer)
        if refusal is None:
            receipts.delivered(index)
        else:
            receipts.rejected(index, refusal, refusal_hint(answer.status))

    def _rendered(self, item: Outgoing) -> list[tuple[bytes, bytes]]:
        rendered = [(name, pattern.render(item.uplink)) for name, pattern in self._patterns]
        item.replaced = sum(value.replaced for _, value in rendered)
        return [(name, value.text.encode("latin-1")) for name, value in rendered]

    async def receive(self) -> Incoming:
        """Wait for ever: downlinks come to intake, over the `downlinkUrl`."""
        await trio.sleep_forever()

    async def acknowledge(self, incoming: Incoming) -> None:
        """Nothing is ever received, so nothing waits for this."""
        await trio.lowlevel.checkpoint()


def _by_lane(batch: Sequence[Outgoing]) -> list[list[int]]:
    """The indexes of each lane, in order; the lane with the oldest uplink first."""
    lanes: dict[str, list[int]] = {}
    for index, item in enumerate(batch):
        lanes.setdefault(item.uplink.lane, []).append(index)
    return list(lanes.values())


def _names(head: bytes) -> list[str]:
    """The names of the headers of a request."""
    return [line.partition(b":")[0].decode("latin-1") for line in head.split(b"\r\n")[1:] if line]


def _compliance(config: HttpConfig) -> Callable[[Uplink], bytes] | None:
    """Makes what the LRC would add to the request's target; None where that is not asked for."""
    if not config.lrcCompliance:
        return None
    joint = b"&" if config.destinationURL.query else b"?"
    as_id, key = config.downlinkAsId or "", plain(config.tunnelInterfaceAuthenticationKey)
    return lambda uplink: joint + tunnel_query(uplink, as_id=as_id, key=key).encode()


def _fixed_head(config: HttpConfig, forwarder: Proxy | None) -> tuple[bytes, bytes]:
    """What every request begins with, up to the end of its target, and from there: all that no uplink changes."""
    url = config.destinationURL
    headers = {
        "host": (b"Host", url.netloc),
        "content-type": (b"Content-Type", b"application/json"),
        "accept": (b"Accept", b"*/*"),
        "user-agent": (b"User-Agent", f"tpxd/{__version__}".encode()),
    }
    target = url.raw_path
    if forwarder is not None:
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, target)
        headers |= {name.lower().decode(): (name, value) for name, value in forwarder.headers}
    for name, pattern in config.headers.items():
        if pattern.names:
            headers.pop(name.lower(), None)
        else:
            headers[name.lower()] = name.encode(), pattern.render(_NO_UPLINK).text.encode("latin-1")
    head = request_head(b"POST", target, headers.values())
    target_ends = len(b"POST ") + len(target)
    return head[:target_ends], head[target_ends:]


def _judge(config: HttpConfig, forwarder: Proxy | None, proven: Callable[[], bool]) -> Judge:
    words = [word for value in config.headers.values() for word in re.split(r"\s+|\{[^{}]*\}", value.text)]
    words += [value for _, value in config.destinationURL.params.multi_items()]
    # a server that repeats the target of a request does so without decoding it
    words += [pair.split("=", 1)[-1] for pair in config.destinationURL.query.decode("ascii").split("&")]
    if forwarder is not None:
        words += [forwarder.password or "", *(value.decode().split()[-1] for _, value in forwarder.headers)]
    secrets = sorted({word for word in words if len(word) >= SHORTEST_SECRET}, key=len, reverse=True)
    return Judge(shown(config.destinationURL), config.strictMode, tuple(secrets), proven, forwarder)
