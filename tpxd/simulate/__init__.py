"""A simulated LRC: devices that report, tokens, and POSTs as the tunnel interface describes them.

It shares no code with the daemon that it talks to, so that a mistake in one is not repeated by the other.

    token      signs a request
    reports    devices and what they report
    post       a keep-alive HTTP/1.1 client that does nothing else
    lrc        drives all of it at a pace, and counts
"""
