"""AMQP 0-9-1.

client   an AMQP 0-9-1 client that never waits: bytes in, events and bytes out
codec    AMQP 0-9-1 frames as bytes: what a client sends, and what a broker may send to it
content  messages of an AMQP link, pure: the broker's are put together, ours wait for their confirmation
declare  what an AMQP session needs at the broker: an exchange, a queue, bindings between them, a consumer
login    what an AMQP client and a broker say before the first message: who we are, and the limits of the link
session  the tasks around the client, which makes all decisions, and what it declares at the broker
"""
