"""A simulated LRC: devices that report, tokens, POSTs as the tunnel interface describes them, and its other side.

It shares no code with the daemon that it talks to, so that a mistake in one is not repeated by the other.

    token              signs a request, and checks the signature of a downlink
    reports            devices and what they report
    post               a keep-alive HTTP/1.1 client that does nothing else
    lrc                drives all of it at a pace, and counts
    downlink_rules     which downlinks are taken, and what is said to the others
    downlink_lrc       queues them, puts them on air, and counts
    downlink_server    HTTP for them, and the reports about them
"""
