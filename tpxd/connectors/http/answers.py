"""What an HTTP answer means for the message that was posted, and for everything that waits behind it.

Pure: an answer in; a receipt, a refusal or an error out.

    2xx                                       delivered
    401, 407; 403 before anything was taken   AuthenticationFailed
    408, 425, 429; 503 with Retry-After       Throttled
    502, 503, 504                             Refused
    any other                                 refused for good; in strict mode Refused

Behind a proxy that forwards requests, an answer without Via (RFC 9110, 7.6.3) may be the proxy's own, which says
nothing about the message: then a redirect, 403 and everything from 500 on is Refused. A portal before which somebody
has to log in redirects, and tinyproxy answers 500 when it does not reach the server. Squid puts Via into its own
answers too, and marks them with X-Squid-Error.

Source: RFC 9110, 15 (status codes) and 10.2.3 (Retry-After), RFC 6585, 4 (429), RFC 8470, 5.2 (425); ThingPark X
IoT Flow, "HTTP connector" (strict mode).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from tpxd.connectors.http.excerpt import excerpt
from tpxd.connectors.parts.next_steps import OPTIONS
from tpxd.errors import AuthenticationFailed, Refused, Throttled
from tpxd.log import quoted
from tpxd.wire.http.answer import Answer, patience_s, status_text
from tpxd.wire.proxy import Proxy

SQUIDS_OWN: Final = b"x-squid-error"
"""The header that names what Squid complains about, such as `ERR_CONNECT_FAIL 111`."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what an answer means for its uplink, and for everything behind it.

    Attributes:
        url: the destination as it may be shown, without its query.
        secrets: what is masked where the server's own words are shown, since it may echo our request.
        proven: see `connector.Context`.
        forwarder: the proxy that the requests go to.
    """

    url: str
    strict: bool
    secrets: tuple[str, ...]
    proven: Callable[[], bool]
    forwarder: Proxy | None = None

    def __call__(self, answer: Answer) -> str | None:
        """None when the uplink is delivered; else why it is refused for good.

        Raises:
            AuthenticationFailed: our credentials are refused.
            Throttled: the server is overloaded and says so.
            Refused: the server, or a gateway before it, takes nothing now; in strict mode, it refused this uplink.
        """
        status = answer.status
        if 200 <= status < 300:
            return None
        detail = self._detail(answer)
        by_proxy = self.forwarder is not None and _may_be_the_proxys(answer)
        message = f"{self._place(status, by_proxy)}: {detail}"
        if status in (401, 407) or (status == 403 and not by_proxy and not self.proven()):
            raise AuthenticationFailed(message, hint=self._login_hint(status, by_proxy))
        patience = answer.headers.get(b"retry-after")
        if status in (408, 425, 429) or (status == 503 and patience is not None):
            raise Throttled(message, retry_after_s=patience_s(patience, time.time()))
        if by_proxy and (300 <= status < 400 or status == 403 or status >= 500):
            raise Refused(message, hint="does the proxy reach the server, and does it allow us to go there?")
        if status in (502, 503, 504):
            raise Refused(message, hint="is the application behind this server or gateway running?")
        if self.strict:
            raise Refused(message, hint="strictMode = true holds everything back until the server accepts this uplink")
        return detail

    def _place(self, status: int, by_proxy: bool) -> str:
        if not by_proxy:
            return self.url
        return str(self.forwarder) if status == 407 else f"{self.forwarder}, or {self.url} behind it"

    def _login_hint(self, status: int, by_proxy: bool) -> str:
        hint = "do headers hold the credentials that this server expects?"
        if self.forwarder is None or not by_proxy:
            return hint
        ours = OPTIONS[self.forwarder.login_hint]
        return ours if status == 407 else f"{ours} If they are, {hint}"

    def _detail(self, answer: Answer) -> str:
        name = status_text(answer.status)
        location = answer.headers.get(b"location")
        if 300 <= answer.status < 400 and location is not None:
            return f"{name}: redirected to {self._location(location)}; put the final URL into destinationURL"
        # beside it, Squid's body is a page for people
        text = excerpt(answer.headers.get(SQUIDS_OWN, answer.body).decode("utf-8", "replace"), self.secrets)
        return f"{name}: {text}" if text else name

    def _location(self, location: bytes) -> str:
        try:
            return quoted(shown(httpx.URL(self.url).join(location.decode("latin-1"))))
        except httpx.InvalidURL:
            return "something that is no URL"


def refusal_hint(status: int) -> str:
    """What to look at where a server refuses uplinks for good with this status."""
    if 300 <= status < 400:
        return "redirects are not followed; does destinationURL hold the final URL?"
    if status in (404, 405, 410):
        return "is the path of destinationURL right, and does the application take POST there?"
    if status == 403:
        return "may these credentials post to this path?"
    if status == 413:
        return "the server limits the size of what it takes"
    if status >= 500:
        return "the server's own log says what failed; strictMode = true holds uplinks instead of giving them up"
    return "does the application take JSON in this form? sendMetadata and sendRawDecodedFormat change it"


def _may_be_the_proxys(answer: Answer) -> bool:
    return answer.status == 407 or b"via" not in answer.headers or SQUIDS_OWN in answer.headers


def shown(url: httpx.URL) -> str:
    """The URL without what may be secret."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
