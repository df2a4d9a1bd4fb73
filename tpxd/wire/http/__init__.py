"""HTTP/1.1, both sides: parsers that never await, and the servers and clients around them.

answer    HTTP/1.1 as a client reads and writes it: a request's head out, bytes in, answers out
client    POSTs to one server over links that stay open
listen    where a server listens, how it accepts, and the TCP stream that its connections use
messages  what an HTTP/1.1 server reads and writes, and how much of it
parser    HTTP/1.1 as a server reads it: bytes in, requests out
server    the shell around the parser: sockets, deadlines, and the order in which things end
"""

from tpxd.wire.http.listen import CannotListen
from tpxd.wire.http.messages import Limits, Request, Response
from tpxd.wire.http.server import Respond, serve_http

__all__ = ["CannotListen", "Limits", "Request", "Respond", "Response", "serve_http"]
