"""The client core, fed with bytes: flow, heartbeats, the end, and laws that hold whatever comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from tests.wire.amqp_client import OPTIONS, connected, consuming, publish, said, tuned
from tests.wire.scripted_rabbit import ack, on, start
from tpxd.errors import ConnectFailed, LinkLost, LocalMisuse, RemoteViolation
from tpxd.wire.amqp.client import NEVER, AmqpClient
from tpxd.wire.amqp.content import Closed, Event, FlowChanged, Settled
from tpxd.wire.amqp.login import AmqpOptions, State
from tpxd.wire.flood import AT_ONCE, PER_SECOND


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
    def test_a_storm_of_them_ends_the_link(self) -> None:
        client = connected()
        beat = on(0, Heartbeat())
        assert client.receive_data(AT_ONCE * beat, 1.0) == []
        assert client.receive_data(int(PER_SECOND) * beat, 2.0) == []
        with pytest.raises(RemoteViolation, match="a flood of heartbeats"):
            client.receive_data(beat, 2.0)

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
