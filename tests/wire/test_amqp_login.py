"""The client core, fed with bytes: how it gets in, and how it is turned away."""

from __future__ import annotations

import pytest
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Channel, Confirm, Connection
from pamqp.header import ProtocolHeader

from tests.wire.amqp_client import OPTIONS, WELCOME, connected, said, tuned
from tests.wire.scripted_rabbit import GREETING, ack, closed_channel, on, start
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, RemoteViolation, TpxdError
from tpxd.wire.amqp.client import CONSUMING, PUBLISHING, AmqpClient
from tpxd.wire.amqp.content import Closed, Opened
from tpxd.wire.amqp.login import AmqpOptions, State


class TestLogin:
    def test_all_of_it(self) -> None:
        client = AmqpClient(OPTIONS, 0.0)
        assert client.outgoing(0.0) == GREETING
        assert client.receive_data(on(0, start()), 0.0) == []
        (credentials,) = said(client)
        assert (credentials.mechanism, credentials.response, credentials.locale) == ("PLAIN", "\0tpx\0p", "en_US")
        assert credentials.client_properties["connection_name"] == "tpxd-1"
        assert credentials.client_properties["capabilities"]["authentication_failure_close"] is True
        assert client.receive_data(on(0, Connection.Tune(2047, 131_072, 30)), 0.0) == []
        tune_ok, opened = said(client)
        assert dict(tune_ok) == {"channel_max": 2, "frame_max": 131_072, "heartbeat": 30}
        assert opened.virtual_host == "/"
        assert client.receive_data(on(0, Connection.OpenOk()), 0.0) == []
        assert [value.name for value in said(client)] == ["Channel.Open", "Confirm.Select"]
        assert client.receive_data(on(1, Channel.OpenOk(), Confirm.SelectOk()), 0.0) == [Opened()]
        assert client.state is State.CONNECTED
        assert client.is_open(PUBLISHING)
        assert not client.is_open(CONSUMING)

    def test_external(self) -> None:
        client = AmqpClient(AmqpOptions("id"), 0.0)
        client.outgoing(0.0)
        client.receive_data(on(0, start("AMQPLAIN EXTERNAL")), 0.0)
        (credentials,) = said(client)
        assert (credentials.mechanism, credentials.response) == ("EXTERNAL", "")

    @pytest.mark.parametrize(
        ("options", "offered", "missing"),
        [(OPTIONS, "EXTERNAL AMQPLAIN", "PLAIN"), (AmqpOptions("id"), "PLAIN", "EXTERNAL"), (OPTIONS, "", "PLAIN")],
    )
    def test_a_mechanism_that_is_not_offered(self, options: AmqpOptions, offered: str, missing: str) -> None:
        with pytest.raises(AuthenticationFailed, match=f"offers the login {offered} and not {missing}") as caught:
            AmqpClient(options, 0.0).receive_data(on(0, start(offered)), 0.0)
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("offered", "agreed"),
        [
            ((0, 0, 0), (2, 131_072, 60)),
            ((2047, 8_192, 10), (2, 8_192, 10)),
            ((2, 1_000_000, 580), (2, 131_072, 60)),
        ],
    )
    def test_limits(self, offered: tuple[int, int, int], agreed: tuple[int, int, int]) -> None:
        tune_ok = said(tuned(tune=Connection.Tune(*offered)))[2]
        assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == agreed

    def test_limits_that_are_none(self) -> None:
        with pytest.raises(RemoteViolation, match="frames of at most 4095 bytes"):
            tuned(tune=Connection.Tune(0, 4_095, 0))
        with pytest.raises(ConnectFailed, match="allows 1 channel"):
            tuned(tune=Connection.Tune(1, 0, 0))

    def test_the_frame_size_that_was_agreed_on_counts(self) -> None:
        client = connected(tune=Connection.Tune(0, 4_096, 0))
        client.publish("x", "k", bytes(5_000), "i", 1)
        assert [len(value.value) for value in said(client) if isinstance(value, ContentBody)] == [4_088, 912]
        with pytest.raises(RemoteViolation, match="longer than the 4096 allowed"):
            client.receive_data(on(2, ContentBody(bytes(5_000))), 0.0)

    def test_a_greeting_is_short(self) -> None:
        with pytest.raises(RemoteViolation, match="longer than the 4096 allowed"):
            AmqpClient(OPTIONS, 0.0).receive_data(on(0, start("X" * 4_096)), 0.0)

    def test_what_a_broker_says_is_cut(self) -> None:
        with pytest.raises(AuthenticationFailed) as caught:
            AmqpClient(OPTIONS, 0.0).receive_data(on(0, start("GSSAPI " * 500)), 0.0)
        assert len(caught.value.message) < 300
        client = connected()
        client.receive_data(on(0, Connection.Blocked("low on memory " * 18)), 0.0)
        assert client.blocked is not None
        assert len(client.blocked) <= 200

    def test_other_protocols(self) -> None:
        client = AmqpClient(OPTIONS, 0.0)
        assert client.receive_data(b"AMQP", 0.0) == []
        with pytest.raises(ConnectFailed, match="speaks AMQP 1-0-0, not 0-9-1"):
            client.receive_data(b"\3\1\0\0", 0.0)
        with pytest.raises(ConnectFailed, match="speaks AMQP 0-8, not 0-9-1"):
            AmqpClient(OPTIONS, 0.0).receive_data(on(0, start(version_minor=8)), 0.0)
        with pytest.raises(RemoteViolation, match="unknown kind 72"):
            AmqpClient(OPTIONS, 0.0).receive_data(b"HTTP/1.1 400 Bad Request", 0.0)

    @pytest.mark.parametrize(
        ("stage", "code", "error", "hint"),
        [
            (0, 403, AuthenticationFailed, "check user name"),
            (0, 530, ConnectFailed, None),
            (1, 530, ConnectFailed, "check the virtual host"),
            (1, 403, ConnectFailed, "check the virtual host"),
            (1, 541, ConnectFailed, None),
        ],
    )
    def test_closed(self, stage: int, code: int, error: type[TpxdError], hint: str | None) -> None:
        client = AmqpClient(OPTIONS, 0.0)
        client.receive_data(on(0, start()), 0.0)
        if stage:
            client.receive_data(on(0, Connection.Tune(0, 0, 0)), 0.0)
        client.outgoing(0.0)
        (event,) = client.receive_data(on(0, Connection.Close(code, "NO - it is closed.", 0, 0)), 0.0)
        assert isinstance(event, Closed)
        assert type(event.error) is error
        assert f"NO - it is closed ({code})" in str(event.error)
        assert (event.error.hint or "").startswith(hint or "")
        assert [value.name for value in said(client)] == ["Connection.CloseOk"]

    def test_no_channel(self) -> None:
        client = tuned()
        client.receive_data(on(0, Connection.OpenOk()), 0.0)
        with pytest.raises(ConnectFailed, match=r"opens no channel: RESOURCE-ERROR \(506\)"):
            client.receive_data(closed_channel(506, "", 1), 0.0)

    def test_what_the_end_of_the_stream_means(self) -> None:
        client = AmqpClient(OPTIONS, 0.0)
        ends = [client.ended("closed", None)]
        client.receive_data(on(0, start()), 0.0)
        ends.append(client.ended("closed", None))
        client.receive_data(on(0, Connection.Tune(0, 0, 0)), 0.0)
        ends.append(client.ended("closed", None))
        client.receive_data(WELCOME, 0.0)
        ends.append(client.ended("closed", "a hint"))
        assert [type(error) for error in ends] == [ConnectFailed, AuthenticationFailed, ConnectFailed, LinkLost]
        assert [bool(error.hint) for error in ends] == [True] * 4

    @pytest.mark.parametrize(
        "data",
        [
            on(0, Connection.Tune(0, 0, 0)),
            on(0, Connection.OpenOk()),
            on(0, Connection.Secure("again")),
            on(1, Channel.OpenOk()),
            ack(1),
        ],
    )
    def test_nothing_else_may_come_first(self, data: bytes) -> None:
        with pytest.raises(RemoteViolation, match=r"while STARTING|which is not open"):
            AmqpClient(OPTIONS, 0.0).receive_data(data, 0.0)

    def test_nothing_comes_twice(self) -> None:
        for again in (on(0, start()), on(0, Connection.Tune(0, 0, 0)), on(0, Connection.OpenOk())):
            with pytest.raises(RemoteViolation, match="while CONNECTED"):
                connected().receive_data(again, 0.0)
        client = tuned()
        with pytest.raises(RemoteViolation, match="while OPENING"):
            client.receive_data(on(0, Connection.OpenOk()) * 2, 0.0)


def test_the_protocol_header_is_pamqps() -> None:
    assert frame.marshal(ProtocolHeader(), 0) == GREETING
