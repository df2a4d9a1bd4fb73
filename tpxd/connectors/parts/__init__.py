"""What several connectors share; it imports none of them.

leftovers  what a connection leaves at a broker beyond its links: subscriptions of a session, bindings of a queue
link       how to reach a message broker: the part of a `[configuration]` that MQTT and AMQP share
mqtt       what the connectors that speak MQTT 3.1.1 share: topics by FPort, publishing for receipts
next_steps what wire tells an operator to do, in the names that the options have in a connection file
tls        how a connection proves who it is and whom it trusts, and by which proxy it goes: what all connectors share
topics     which topic or routing key goes with what: uplinks by FPort, reports about downlinks
"""
