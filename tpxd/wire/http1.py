"""A small HTTP/1.1 server: for the data plane and for the health ports of single connections.

The parser (`http1_parser`) never awaits, the server (`http1_server`) never looks into a request.
"""

from tpxd.wire.http1_listen import CannotListen
from tpxd.wire.http1_messages import Limits, Request, Response
from tpxd.wire.http1_server import Respond, serve_http

__all__ = ["CannotListen", "Limits", "Request", "Respond", "Response", "serve_http"]
