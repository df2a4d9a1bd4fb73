"""The client core, fed with bytes: confirmations, answers and deliveries on its channels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue
from pamqp.header import ContentHeader

from tests.wire.amqp_client import connected, consuming, publish, published, said
from tests.wire.scripted_rabbit import ack, closed_channel, deliver, nack, on, returned
from tpxd.errors import LinkLost, RemoteViolation
from tpxd.wire.amqp.content import Answer, ChannelClosed, ConsumerCancelled, Delivery, Event, Refusal, Settled
from tpxd.wire.amqp.login import AmqpOptions


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
