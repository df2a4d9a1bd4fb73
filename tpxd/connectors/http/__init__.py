"""Uplinks to a web server, one POST each.

answers    what an HTTP answer means for the message that was posted, and for everything that waits behind it
connector  Connector `actility-http-iot`: one POST per uplink to a web server
excerpt    what may be shown of a request and its answer
"""

from tpxd.connectors.http import connector as _connector  # noqa: F401 - registers it
