"""What an AMQP client and a broker say before the first message: who we are, and the limits of the link. Pure.

Theory of operation
    The broker lists its SASL mechanisms. A user name means PLAIN; no user name means EXTERNAL, where the client
    certificate of the TLS layer says who we are. Of each limit the smaller one counts, and 0 sets none.

Source: AMQP 0-9-1, section 2.2.4 and class connection; RFC 4616 (PLAIN), RFC 4422 (EXTERNAL).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from tpxd import __version__
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, RemoteViolation
from tpxd.log import quoted
from tpxd.wire.amqp import codec
from tpxd.wire.amqp.codec import Connection
from tpxd.wire.next_steps import NextStep

MAX_FRAME_BYTES = 131_072
CHANNELS = 2


class State(Enum):
    """Where the link stands; it never goes back."""

    STARTING = auto()
    AUTHENTICATING = auto()
    OPENING = auto()
    CONNECTED = auto()
    CLOSING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class AmqpOptions:
    """How a session introduces itself, and its limits.

    Attributes:
        connection_name: what the broker's operator sees.
        username: None leaves it to the client certificate to say who we are.
        heartbeat_s: longest silence on the link before it is doubted; the broker may ask for less.
        connect_timeout_s: from the protocol header to the end of the login.
        answer_timeout_s: from a question, such as a declaration, to its answer.
        window: unconfirmed messages under way at once.
        max_incoming_bytes: of the body of a message from the broker.
    """

    connection_name: str
    virtual_host: str = "/"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    heartbeat_s: int = 60
    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 10.0
    window: int = 1024
    max_incoming_bytes: int = 1 << 20


def refuse_other_protocols(incoming: bytes | bytearray) -> None:
    """A broker that does not speak our version names its own instead of a greeting, and closes (4.2.2).

    Raises:
        ConnectFailed: these are the first bytes of such a broker.
    """
    if len(incoming) >= len(codec.PROTOCOL_HEADER) and incoming.startswith(b"AMQP"):
        version = "-".join(str(number) for number in incoming[5:8])
        raise ConnectFailed(
            f"the broker speaks AMQP {version}, not 0-9-1", hint="enable AMQP 0-9-1 at the broker, or use another one"
        )


def introduce(start: Connection.Start, options: AmqpOptions) -> Connection.StartOk:
    """Answer the broker's first words.

    Raises:
        ConnectFailed: it speaks another version.
        AuthenticationFailed: it does not offer the mechanism that our credentials need.
    """
    if (start.version_major, start.version_minor) != (0, 9):
        raise ConnectFailed(f"the broker speaks AMQP {start.version_major}-{start.version_minor}, not 0-9-1")
    offered = str(start.mechanisms).split()
    if options.username is None:
        mechanism, response = "EXTERNAL", ""
        hint: str = NextStep.NO_EXTERNAL
    else:
        mechanism, response = "PLAIN", f"\0{options.username}\0{options.password or ''}"
        hint = "let the broker accept PLAIN, or leave out the user name where a client certificate says who we are"
    if mechanism not in offered:
        raise AuthenticationFailed(
            f"the broker offers the login {quoted(' '.join(offered))} and not {mechanism}", hint=hint
        )
    return Connection.StartOk(
        client_properties={
            "product": "tpxd",
            "version": __version__,
            "connection_name": options.connection_name,
            "capabilities": {
                "publisher_confirms": True,
                "basic.nack": True,
                "connection.blocked": True,
                "consumer_cancel_notify": True,
                "authentication_failure_close": True,
            },
        },
        mechanism=mechanism,
        response=response,
        locale="en_US",
    )


def agree(tune: Connection.Tune, options: AmqpOptions) -> Connection.TuneOk:
    """Settle the limits of the link.

    Raises:
        RemoteViolation: the broker wants frames shorter than the protocol allows.
        ConnectFailed: it allows fewer channels than a session has.
    """
    if 0 < tune.frame_max < codec.MIN_FRAME_BYTES:
        raise RemoteViolation(f"frames of at most {tune.frame_max} bytes, where {codec.MIN_FRAME_BYTES} is the least")
    if 0 < tune.channel_max < CHANNELS:
        raise ConnectFailed(f"the broker allows {tune.channel_max} channel, a session has {CHANNELS}")
    return Connection.TuneOk(
        channel_max=CHANNELS,
        frame_max=min(tune.frame_max or MAX_FRAME_BYTES, MAX_FRAME_BYTES),
        heartbeat=min(tune.heartbeat or options.heartbeat_s, options.heartbeat_s),
    )


def words(code: int | None, text: str) -> str:
    """What the broker gave as its reason, as one line with its reply code."""
    reason = quoted(text).rstrip(".") or codec.reply_name(code or 0) or "no reason given"
    return f"{reason} ({code})"


def refused(code: int | None, text: str, *, opening: bool) -> AuthenticationFailed | ConnectFailed:
    """The error that a broker's Connection.Close means before the login is through.

    Args:
        opening: the credentials were accepted; the virtual host is next.
    """
    if code == 403 and not opening:
        return AuthenticationFailed(f"the broker refuses the login: {words(code, text)}", hint=NextStep.CREDENTIALS)
    hint = NextStep.VIRTUAL_HOST if opening and code in (402, 403, 404, 530) else None
    return ConnectFailed(f"the broker refuses the connection: {words(code, text)}", hint=hint)


def ended(state: State, reason: str, hint: str | None) -> AuthenticationFailed | LinkLost:
    """The error that the end of the stream means in this state."""
    match state:
        case State.STARTING:
            hint = hint or "is this the AMQP port of a broker, and does it want TLS?"
            return ConnectFailed(f"no greeting from a broker: {reason}", hint=hint)
        case State.AUTHENTICATING:
            # so a broker without authentication_failure_close refuses a login (2.2.4)
            text = f"the broker ended the connection during the login: {reason}"
            return AuthenticationFailed(text, hint=hint or NextStep.CREDENTIALS)
        case State.OPENING:
            text = f"the broker ended the connection after the login: {reason}"
            return ConnectFailed(text, hint=hint or NextStep.VIRTUAL_HOST)
        case _:
            return LinkLost(f"connection lost: {reason}", hint=hint or "the broker's log may tell why")
