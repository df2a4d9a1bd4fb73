"""The client core, fed with bytes: login, confirmations, deliveries, refusals, time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from tests.wire.scripted_rabbit import (
    GREETING,
    Published,
    ack,
    closed_channel,
    deliver,
    nack,
    on,
    returned,
    start,
)
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, LocalMisuse, RemoteViolation, TpxdError
from tpxd.wire.amqp import CONSUMING, NEVER, PUBLISHING, AmqpClient
from tpxd.wire.amqp_events import (
    Answer,
    ChannelClosed,
    Closed,
    ConsumerCancelled,
    Delivery,
    Event,
    FlowChanged,
    Opened,
    Refusal,
    Settled,
)
from tpxd.wire.amqp_login import AmqpOptions, State

OPTIONS = AmqpOptions("tpxd-1", username="tpx", password="p")
WELCOME = on(0, Connection.OpenOk()) + on(1, Channel.OpenOk(), Confirm.SelectOk())


def said(client: AmqpClient, now: float = 0.0) -> list[Any]:
    """What the client wants to send, as pamqp reads it."""
    data, frames = client.outgoing(now), []
    while data:
        used, _, value = frame.unmarshal(data)
        frames.append(value)
        data = data[used:]
    return frames


def tuned(options: AmqpOptions = OPTIONS, tune: Connection.Tune | None = None) -> AmqpClient:
    client = AmqpClient(options, 0.0)
    client.receive_data(on(0, start()), 0.0)
    client.receive_data(on(0, tune or Connection.Tune(2047, 131_072, 60)), 0.0)
    return client


def connected(options: AmqpOptions = OPTIONS, tune: Connection.Tune | None = None) -> AmqpClient:
    client = tuned(options, tune)
    assert client.receive_data(WELCOME, 0.0) == [Opened()]
    client.outgoing(0.0)
    return client


def publish(client: AmqpClient, *names: str) -> list[int]:
    return [client.publish("x", "k", b"{}", name, 1) for name in names]


def published(client: AmqpClient) -> list[Published]:
    """What the client wants to publish."""
    frames = said(client)
    return [
        Published(method.exchange, method.routing_key, body.value, method.mandatory, header.properties)
        for method, header, body in zip(*[iter(frames)] * 3, strict=True)
    ]


def consuming() -> AmqpClient:
    client = connected()
    client.ask(Channel.Open())
    client.ask(Basic.Consume(queue="q"))
    client.receive_data(on(2, Channel.OpenOk(), Basic.ConsumeOk("tpxd")), 0.0)
    client.outgoing(0.0)
    return client


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
            (0, 403, AuthenticationFailed, "check username"),
            (0, 530, ConnectFailed, None),
            (1, 530, ConnectFailed, "check virtualHost"),
            (1, 403, ConnectFailed, "check virtualHost"),
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


class TestConfirmations:
    def test_one_by_one_in_any_order(self) -> None:
        client = connected()
        assert publish(client, "a", "b", "c") == [1, 2, 3]
        assert client.receive_data(ack(2) + nack(1) + ack(3), 0.0) == [
            Settled([2]),
            Settled([1], Refusal("the broker could not take it (Basic.Nack)", unroutable=False)),
            Settled([3]),
        ]

    def test_multiple(self) -> None:
        client = connected()
        publish(client, *"abcdef")
        data = ack(2) + ack(4, multiple=True) + nack(0, multiple=True)
        events = client.receive_data(data, 0.0)
        assert [event.tags for event in events if isinstance(event, Settled)] == [[2], [1, 3, 4], [5, 6]]
        assert [event.refusal is None for event in events if isinstance(event, Settled)] == [True, True, False]

    def test_messages_as_they_are_sent(self) -> None:
        client = connected()
        publish(client, "0badcafe-1-2")
        (message,) = published(client)
        assert (message.exchange, message.routing_key, message.body, message.mandatory) == ("x", "k", b"{}", True)
        properties = {name: value for name, value in message.properties if value not in (None, "")}
        assert properties.pop("timestamp").timestamp() == 1  # type: ignore[union-attr]
        assert properties == {
            "content_type": "application/json", "delivery_mode": 2, "message_id": "0badcafe-1-2", "app_id": "tpxd",
        }  # fmt: skip

    def test_a_returned_message_is_refused_with_its_confirmation(self) -> None:
        client = connected()
        publish(client, *"abc")
        messages = published(client)
        assert client.receive_data(returned(messages[1]) + returned(messages[2], 313, "NO_CONSUMERS"), 0.0) == []
        assert client.receive_data(ack(3, multiple=True), 0.0) == [
            Settled([2], Refusal("NO_ROUTE (312)", unroutable=True)),
            Settled([3], Refusal("NO_CONSUMERS (313)", unroutable=False)),
            Settled([1]),
        ]

    def test_two_of_one_name(self) -> None:
        """The first was given up by whoever sent it, and sent again."""
        client = connected()
        publish(client, "a", "a")
        first, second = published(client)
        data = returned(first) + ack(1) + returned(second) + ack(2)
        events = client.receive_data(data, 0.0)
        refusal = Refusal("NO_ROUTE (312)", unroutable=True)
        assert events == [Settled([1], refusal), Settled([2], refusal)]

    @pytest.mark.parametrize(
        "data",
        [
            ack(0), ack(3), nack(3), ack(3, multiple=True), ack(1) + ack(1), ack(2, multiple=True) + ack(1),
            ack(2, multiple=True) + ack(0, multiple=True), ack(1) + ack(1, multiple=True),
            ack(2**63 - 1, multiple=True),
            on(2, Basic.Ack(1)),
        ],
    )  # fmt: skip
    def test_a_confirmation_of_nothing(self, data: bytes) -> None:
        client = connected()
        client.ask(Channel.Open())
        publish(client, *"ab")
        with pytest.raises(RemoteViolation, match=r"for which no message waits|on which nothing is published"):
            client.receive_data(data, 0.0)

    def test_a_return_of_nothing(self) -> None:
        client = connected()
        publish(client, "a")
        (message,) = published(client)
        assert client.receive_data(returned(message), 0.0) == []
        with pytest.raises(RemoteViolation, match="returned that was not sent: a"):
            client.receive_data(returned(message), 0.0)

    @given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms(use_true_random=False))
    def test_each_message_is_settled_once(self, refused: list[bool], chance: Any) -> None:
        client = connected()
        tags = publish(client, *(str(number) for number in range(len(refused))))
        open_tags, seen = list(tags), dict[int, bool]()
        while open_tags:
            multiple = chance.random() < 0.4
            tag = chance.choice(open_tags)
            settled = [other for other in open_tags if other == tag or (multiple and other < tag)]
            say = nack if refused[tag - 1] else ack
            for event in client.receive_data(say(tag, multiple=multiple), 0.0):
                assert isinstance(event, Settled)
                for one in event.tags:
                    assert one not in seen
                    seen[one] = event.refusal is not None
            assert set(settled) <= set(seen)
            open_tags = [other for other in open_tags if other not in settled]
        assert set(seen) == set(tags)


class TestQuestions:
    def test_answers_carry_the_number_of_their_question(self) -> None:
        client = connected()
        first, second = client.ask(Channel.Open()), client.ask(Queue.Declare(queue="q", durable=True))
        assert [value.name for value in said(client)] == ["Channel.Open", "Queue.Declare"]
        opened, declared = client.receive_data(on(2, Channel.OpenOk(), Queue.DeclareOk("q", 0, 0)), 0.0)
        assert isinstance(opened, Answer)
        assert isinstance(declared, Answer)
        assert (opened.question, declared.question) == (first, second)
        assert declared.method.name == "Queue.DeclareOk"

    @pytest.mark.parametrize("data", [on(2, Queue.BindOk()), on(2, Channel.OpenOk()) * 2, on(1, Confirm.SelectOk())])
    def test_an_answer_to_nothing(self, data: bytes) -> None:
        client = connected()
        client.ask(Channel.Open())
        with pytest.raises(RemoteViolation, match="answers nothing that was asked"):
            client.receive_data(data, 0.0)

    def test_a_refused_question_closes_the_channel_and_no_other(self) -> None:
        client = connected()
        client.ask(Channel.Open())
        client.receive_data(on(2, Channel.OpenOk()), 0.0)
        question = client.ask(Exchange.Declare(exchange="x", passive=True))
        client.outgoing(0.0)
        assert client.receive_data(closed_channel(404, "NOT_FOUND - no exchange 'x'", 2), 0.0) == [
            ChannelClosed(2, 404, "NOT_FOUND - no exchange 'x' (404)", (question,))
        ]
        assert [value.name for value in said(client)] == ["Channel.CloseOk"]
        with pytest.raises(LinkLost, match="closed the channel: NOT_FOUND"):
            client.ask(Exchange.Declare(exchange="x"))
        publish(client, "a")
        assert client.receive_data(ack(1), 0.0) == [Settled([1])]
        client.ask(Channel.Open())
        client.ask(Exchange.Declare(exchange="x"))
        assert len(client.receive_data(on(2, Channel.OpenOk(), Exchange.DeclareOk()), 0.0)) == 2

    def test_a_refused_message_closes_its_channel(self) -> None:
        client = connected()
        publish(client, "a", "b")
        data = ack(1) + closed_channel(403, "ACCESS_REFUSED - topic", 1)
        assert client.receive_data(data, 0.0) == [
            Settled([1]),
            ChannelClosed(1, 403, "ACCESS_REFUSED - topic (403)", ()),
        ]
        with pytest.raises(LinkLost, match="closed the channel: ACCESS_REFUSED"):
            publish(client, "c")


class TestDeliveries:
    def test_acknowledged_on_command_and_once(self) -> None:
        client = consuming()
        assert client.receive_data(deliver(1, "a.b", b"go") + deliver(2, "c", b"", redelivered=True), 0.0) == [
            Delivery(1, "a.b", b"go", 2, redelivered=False),
            Delivery(2, "c", b"", 0, redelivered=True),
        ]
        assert not client.has_outgoing
        for tag in (1, 1, 7):
            client.acknowledge(tag)
        client.reject(2)
        acknowledged, rejected = said(client)
        assert (acknowledged.name, acknowledged.delivery_tag, acknowledged.multiple) == ("Basic.Ack", 1, False)
        assert (rejected.name, rejected.delivery_tag, rejected.requeue) == ("Basic.Reject", 2, False)

    def test_in_several_bodies(self) -> None:
        client = consuming()
        parts = [ContentBody(part) for part in (b"ab", b"c", b"def")]
        data = on(2, Basic.Deliver("tpxd", 1, False, "x", "k"), ContentHeader(0, 6), *parts)
        events: list[Event] = []
        for octet in data:
            assert not events
            events += client.receive_data(bytes((octet,)), 0.0)
        assert events == [Delivery(1, "k", b"abcdef", 6, redelivered=False)]

    def test_a_long_one_is_not_kept(self) -> None:
        client = consuming()
        client._options = AmqpOptions("id", max_incoming_bytes=3)
        assert client.receive_data(deliver(1, "k", b"abc") + deliver(2, "k", b"abcd"), 0.0) == [
            Delivery(1, "k", b"abc", 3, redelivered=False),
            Delivery(2, "k", b"", 4, redelivered=False),
        ]

    def test_confirmations_between_the_parts(self) -> None:
        """Channels are woven into one another; a message's parts are not, within theirs."""
        client = consuming()
        publish(client, "a")
        whole = deliver(1, "k", b"go")
        assert client.receive_data(whole[:-10] + b"", 0.0) == []
        cut = len(whole) - 10
        assert client.receive_data(whole[cut:], 0.0) == [Delivery(1, "k", b"go", 2, redelivered=False)]
        head = on(2, Basic.Deliver("tpxd", 2, False, "x", "k"))
        rest = on(2, ContentHeader(0, 2), ContentBody(b"go"))
        assert client.receive_data(head + ack(1) + rest, 0.0) == [
            Settled([1]),
            Delivery(2, "k", b"go", 2, redelivered=False),
        ]

    @pytest.mark.parametrize(
        ("frames", "reason"),
        [
            ((ContentHeader(0, 1),), "a header of a message that nobody announced"),
            ((ContentBody(b"x"),), "a body of a message that nobody announced"),
            ((Basic.Deliver("tpxd", 1, False, "x", "k"), ContentBody(b"x")), "body of a message before its header"),
            ((Basic.Deliver("tpxd", 1, False, "x", "k"), Basic.CancelOk("c")), "where the rest of a message must be"),
            ((Basic.Deliver("tpxd", 1, False, "x", "k"), ContentHeader(0, 1), ContentHeader(0, 1)), "a second header"),
            (
                (Basic.Deliver("tpxd", 1, False, "x", "k"), ContentHeader(0, 1), ContentBody(b"xy")),
                "2 bytes .* lacks 1",
            ),
            ((Basic.Deliver("tpxd", 0, False, "x", "k"), ContentHeader(0, 0)), "a delivery with the tag 0"),
        ],
    )
    def test_parts_that_do_not_fit(self, frames: tuple[frame.FrameTypes, ...], reason: str) -> None:
        with pytest.raises(RemoteViolation, match=reason):
            consuming().receive_data(on(2, *frames), 0.0)

    def test_one_tag_twice(self) -> None:
        client = consuming()
        with pytest.raises(RemoteViolation, match="tag 1"):
            client.receive_data(deliver(1, "k", b"a") * 2, 0.0)

    def test_on_the_wrong_channel(self) -> None:
        with pytest.raises(RemoteViolation, match="answers nothing"):
            consuming().receive_data(on(1, Basic.Deliver("tpxd", 1, False, "x", "k")), 0.0)
        with pytest.raises(RemoteViolation, match="channel 3, which is not open"):
            consuming().receive_data(on(3, Basic.Deliver("tpxd", 1, False, "x", "k")), 0.0)

    def test_the_consumer_is_cancelled(self) -> None:
        client = consuming()
        assert client.receive_data(on(2, Basic.Cancel("tpxd", nowait=True)), 0.0) == [ConsumerCancelled()]
        assert not client.has_outgoing
        client.receive_data(on(2, Basic.Cancel("tpxd", nowait=False)), 0.0)
        assert [value.name for value in said(client)] == ["Basic.CancelOk"]


class TestFlow:
    def test_blocked(self) -> None:
        client = connected()
        assert client.receive_data(on(0, Connection.Blocked("low on  memory")), 0.0) == [FlowChanged()]
        assert client.blocked == "low on memory"
        assert client.receive_data(on(0, Connection.Unblocked()), 0.0) == [FlowChanged()]
        assert client.blocked is None

    def test_channel_flow(self) -> None:
        client = connected()
        assert client.receive_data(on(1, Channel.Flow(active=False)), 0.0) == [FlowChanged()]
        assert client.blocked == "it asked for silence (Channel.Flow)"
        assert [(value.name, value.active) for value in said(client)] == [("Channel.FlowOk", False)]
        client.receive_data(on(0, Connection.Blocked("disk")) + on(0, Connection.Unblocked()), 0.0)
        assert client.blocked
        client.receive_data(on(1, Channel.Flow(active=True)), 0.0)
        assert client.blocked is None


class TestEnd:
    def test_by_us(self) -> None:
        client = connected()
        publish(client, "a")
        client.outgoing(0.0)
        client.disconnect()
        (close,) = said(client)
        assert (close.name, close.reply_code) == ("Connection.Close", 200)
        # what was on its way does not count any more, whatever it is
        assert client.receive_data(ack(1) + ack(77) + on(0, Heartbeat()), 0.0) == []
        assert client.receive_data(on(0, Connection.CloseOk()), 0.0) == []
        assert client.state is State.CLOSED

    def test_by_both(self) -> None:
        client = connected()
        client.disconnect()
        client.outgoing(0.0)
        assert client.receive_data(on(0, Connection.Close(320, "shutdown", 0, 0)), 0.0) == []
        assert [value.name for value in said(client)] == ["Connection.CloseOk"]
        client.receive_data(on(0, Connection.CloseOk()), 0.0)
        assert client.state.name == "CLOSED"

    def test_by_the_broker(self) -> None:
        client = connected()
        publish(client, "a", "b")
        client.outgoing(0.0)
        data = ack(1) + on(0, Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0))
        settled, closed = client.receive_data(data, 0.0)
        assert settled == Settled([1])
        assert isinstance(closed, Closed)
        assert str(closed.error) == "the broker closed the connection: CONNECTION_FORCED - shutdown (320)"
        assert type(closed.error) is LinkLost
        assert [value.name for value in said(client)] == ["Connection.CloseOk"]
        for command in _commands(client):
            with pytest.raises(LinkLost, match="CONNECTION_FORCED"):
                command()

    def test_commands_need_a_connection(self) -> None:
        fresh, gone = AmqpClient(OPTIONS, 0.0), connected()
        gone.disconnect()
        for client in (fresh, gone):
            for command in (*_commands(client), client.disconnect):
                with pytest.raises(LocalMisuse, match="no command is possible"):
                    command()
        with pytest.raises(LocalMisuse, match="channel 2 while CONNECTED"):
            connected().ask(Queue.Declare(queue="q"))


def _commands(client: AmqpClient) -> list[Callable[[], object]]:
    return [
        lambda: publish(client, "a"),
        lambda: client.ask(Queue.Declare(queue="q")),
        lambda: client.acknowledge(1),
        lambda: client.reject(1),
    ]


class TestHeartbeat:
    def test_after_silence(self) -> None:
        client = connected()
        assert client.next_deadline() == 30
        client.tick(29.9)
        assert not client.has_outgoing
        client.tick(30)
        assert client.outgoing(30) == b"\x08\0\0\0\0\0\0\xce"
        assert client.next_deadline() == 60
        assert client.receive_data(on(0, Heartbeat()), 45) == []
        publish(client, "a")
        client.outgoing(50)
        assert client.next_deadline() == 80

    def test_two_are_missed(self) -> None:
        client = connected()
        for now in (30, 60, 90):
            client.tick(now)
            client.outgoing(now)
        assert client.next_deadline() == 120
        with pytest.raises(LinkLost, match="silent for 120 s, the time of two heartbeats"):
            client.tick(120)

    def test_a_writer_that_is_stuck_does_not_keep_us_busy(self) -> None:
        client = connected()
        client.tick(30)
        assert client.next_deadline() == 60

    def test_what_was_agreed_on_counts(self) -> None:
        client = connected(tune=Connection.Tune(0, 0, 4))
        assert client.next_deadline() == 2
        assert tuned().next_deadline() == 30
        assert AmqpClient(OPTIONS, 0.0).next_deadline() == NEVER
        none = connected(AmqpOptions("id", username="u", heartbeat_s=0), Connection.Tune(0, 0, 0))
        assert none.next_deadline() == NEVER
        none.tick(1_000_000)
        assert not none.has_outgoing


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_random_bytes_raise_nothing_else(chunks: list[bytes]) -> None:
    for client in (AmqpClient(OPTIONS, 0.0), connected(), consuming()):
        with suppress(RemoteViolation, ConnectFailed):
            for chunk in chunks:
                client.receive_data(chunk, 0.0)


METHODS: list[tuple[int, frame.FrameTypes]] = [
    (0, start()), (0, Connection.Tune(0, 0, 0)), (0, Connection.OpenOk()), (0, Connection.Blocked("b")),
    (0, Connection.Close(320, "x", 0, 0)), (0, Connection.CloseOk()), (1, Channel.OpenOk()), (1, Confirm.SelectOk()),
    (1, Channel.Close(404, "x", 0, 0)), (1, Channel.CloseOk()), (1, Basic.Ack(1, True)), (1, Basic.Ack(2)),
    (1, Basic.Nack(3)), (1, Basic.Return(312, "x", "x", "k")), (1, ContentHeader(0, 0)), (1, Channel.Flow(False)),
    (2, Channel.OpenOk()), (2, Basic.ConsumeOk("c")), (2, Basic.Deliver("c", 1, False, "x", "k")),
    (2, ContentHeader(0, 1)), (2, ContentBody(b"x")), (2, Basic.Cancel("c", nowait=True)),
    (2, Channel.Close(404, "x", 0, 0)), (0, Heartbeat()),
]  # fmt: skip


@given(st.lists(st.sampled_from(METHODS), max_size=12))
def test_any_order_of_sound_frames_raises_nothing_else(frames: list[tuple[int, frame.FrameTypes]]) -> None:
    for client in (AmqpClient(OPTIONS, 0.0), tuned(), connected(), consuming()):
        with suppress(LinkLost):
            publish(client, "a", "b", "c") if client.state is State.CONNECTED else None
        with suppress(RemoteViolation, ConnectFailed):
            for channel, value in frames:
                client.receive_data(on(channel, value), 0.0)


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 30))
def test_a_cut_stream_gives_the_same_events(cuts: list[int], count: int) -> None:
    client = connected()
    tags = publish(client, *(str(number) for number in range(count)))
    data = b"".join(ack(tag) for tag in tags)
    events: list[Event] = []
    for cut in cuts:
        events += client.receive_data(data[:cut], 0.0)
        data = data[cut:]
    events += client.receive_data(data, 0.0)
    assert events == [Settled([tag]) for tag in tags]


def test_the_protocol_header_is_pamqps() -> None:
    assert frame.marshal(ProtocolHeader(), 0) == GREETING
