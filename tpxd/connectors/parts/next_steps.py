"""What wire tells an operator to do, in the names that the options have in a connection file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from tpxd.connector import Context, Opener, Transport
from tpxd.errors import TransportError, leaves
from tpxd.wire.next_steps import NextStep

OPTIONS: Final[dict[str, str]] = {
    NextStep.TRUST_ISSUER: "set trustedCaCertificate to the certificate of the CA that issued the server's",
    NextStep.TRUST_CERTIFICATE: "set trustedCaCertificate to that certificate",
    NextStep.TRUST_ANOTHER_CA: "set trustedCaCertificate to the CA that issued the server's, or leave it out where "
    "that is a public one",
    NextStep.CLIENT_CERTIFICATE: "set certificate and privateKey",
    NextStep.CLIENT_CERTIFICATE_PERHAPS: "it may ask for a client certificate: set certificate and privateKey",
    NextStep.CLIENT_CA_KNOWN: "is certificate issued by the CA that the server knows, with its intermediates?",
    NextStep.PROXY_LOGIN: "this proxy asks for credentials: set proxy.username and proxy.password",
    NextStep.PROXY_LOGIN_RIGHT: "are proxy.username and proxy.password right?",
    NextStep.BROKER_TIME: "is the broker overloaded, or actionTimeout too short for this link?",
    NextStep.SERVER_TIME: "is the server overloaded, or actionTimeout too short for it?",
    NextStep.CLIENT_ID: "set clientId to one that the broker allows",
    NextStep.SUBSCRIPTION: "allow this client to subscribe to it, or set downlinkEnabled = false",
    NextStep.CREDENTIALS: "check username and password, and what the broker's log says about this login",
    NextStep.NO_EXTERNAL: "set username and password, or let the broker accept certificates (RabbitMQ: "
    "rabbitmq_auth_mechanism_ssl)",
    NextStep.VIRTUAL_HOST: "check virtualHost, and whether this user has rights on it",
}


@contextmanager
def options_named() -> Iterator[None]:
    """Let errors of a link that leave the block, alone or in a group, name the options of the file."""
    try:
        yield
    except BaseException as error:
        for leaf in leaves(error):
            if isinstance(leaf, TransportError) and leaf.hint is not None:
                leaf.hint = OPTIONS.get(leaf.hint, leaf.hint)
        raise


def naming_options(opener: Opener) -> Opener:
    """The same for all that leaves an opener."""

    @asynccontextmanager
    async def named(config: Any, context: Context) -> AsyncIterator[Transport]:
        with options_named():
            async with opener(config, context) as transport:
                yield transport

    return named
