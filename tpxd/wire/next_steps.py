"""What an operator may do about a link that does not come about, where that is a setting.

Wire does not know what the setting is called: whoever asked for the link may say it in its own words instead.
"""

from __future__ import annotations

from enum import StrEnum


class NextStep(StrEnum):
    """A hint of an error, in words that are true whoever asked."""

    TRUST_ISSUER = "trust the CA that issued the server's certificate"
    TRUST_CERTIFICATE = "trust that certificate"
    TRUST_ANOTHER_CA = "trust the CA that issued the server's certificate, which is not the one that is set"
    CLIENT_CERTIFICATE = "show a client certificate"
    CLIENT_CERTIFICATE_PERHAPS = "it may ask for a client certificate: show one"
    CLIENT_CA_KNOWN = "was it issued by the CA that the server knows, and are its intermediates with it?"
    PROXY_LOGIN = "this proxy asks for a user name and a password: set them"
    PROXY_LOGIN_RIGHT = "are the user name and the password for the proxy right?"
    BROKER_TIME = "is the broker overloaded, or the time that it has too short for this link?"
    SERVER_TIME = "is the server overloaded, or the time that it has too short for it?"
    CLIENT_ID = "use a client id that the broker allows"
    SUBSCRIPTION = "allow this client to subscribe to it"
    CREDENTIALS = "check user name, password, and what the broker's log says about this login"
    NO_EXTERNAL = (
        "set a user name and a password, or let the broker accept certificates (RabbitMQ: rabbitmq_auth_mechanism_ssl)"
    )
    VIRTUAL_HOST = "check the virtual host, and whether this user has rights on it"
