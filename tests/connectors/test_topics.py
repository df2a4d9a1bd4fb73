"""Which topic or routing key goes with what, for every connector that has some."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.connectors.peers import PEERS
from tests.downlinks.downlink_doubles import Disk
from tests.intake.doubles import MemoryStore
from tpxd.connector import Incoming, Outgoing
from tpxd.connectors.parts.topics import DownlinkPorts, UplinkTopics
from tpxd.downlinks.inbox import Inbox
from tpxd.downlinks.queue import open_downlinks
from tpxd.errors import PatternError
from tpxd.events import EventLog
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import StoredDownlink

WITH_TOPICS = sorted(id for id, peer in PEERS.items() if peer.can_downlink)
LANE = "70B3D5E75E00A1C4"


@pytest.fixture(params=WITH_TOPICS)
def connector(request: pytest.FixtureRequest) -> str:
    id: str = request.param
    return id


def config(connector: str, **values: Any) -> Any:
    """A configuration of this connector; patterns are written with slashes and become what it has."""
    base = PEERS[connector].settings | {"downlinkTopicPattern": "plant/{DevEUI}/down"} | values
    text = orjson.dumps({key: value for key, value in base.items() if "attern" in key or key == "topics"}).decode()
    if "amqp" in connector:
        text = text.replace("/", ".")
    return PEERS[connector].config_model.model_validate(base | orjson.loads(text))


def plain(text: str) -> str:
    return text.replace(".", "/")


def report(kind: str = "DevEUI_uplink", **fields: Any) -> Outgoing:
    body = orjson.dumps({kind: {"DevEUI": LANE, **fields}})
    return Outgoing(Uplink(1, 0, kind, LANE, "", body), body)


# ---- reports about downlinks


def test_reports_about_downlinks_go_to_a_topic_of_their_own(connector: str) -> None:
    topics = [{"fPort": 5, "uplinkTopicPattern": "plant/five"}]
    made = UplinkTopics(config(connector, downlinkStatusTopicPattern="status/{DevEUI}/{FPort|'none'}", topics=topics))
    assert plain(made.render(report("DevEUI_downlink_Rejected", FPort=5))) == f"status/{LANE}/5"
    assert plain(made.render(report("DevEUI_downlink_Sent", FPort=5))) == f"status/{LANE}/5"
    assert plain(made.render(report("DevEUI_multicast_summary", FPort=5))) == f"status/{LANE}/5"
    assert plain(made.render(report("DevEUI_downlink_Rejected"))) == f"status/{LANE}/none"
    assert plain(made.render(report(FPort=5))) == "plant/five"
    for kind in ("DevEUI_uplink", "DevEUI_location", "DevEUI_notification"):
        assert plain(made.render(report(kind))) == f"plant/{LANE}/up"


def test_an_uplink_notes_its_topic_for_whoever_looks(connector: str) -> None:
    item = report()
    UplinkTopics(config(connector)).render(item)
    assert plain(item.place) == f"plant/{LANE}/up"


def test_without_one_they_go_where_uplinks_go(connector: str) -> None:
    made = UplinkTopics(config(connector, topics=[{"fPort": 5, "uplinkTopicPattern": "plant/five"}]))
    assert plain(made.render(report("DevEUI_downlink_Sent", FPort=5))) == "plant/five"
    assert plain(made.render(report("DevEUI_downlink_Rejected", FPort=6))) == f"plant/{LANE}/up"


def test_what_cannot_be_made_names_its_pattern(connector: str) -> None:
    made = UplinkTopics(config(connector, downlinkStatusTopicPattern="status/{Name}", uplinkTopicPattern="up/{Name}"))
    for kind, pattern in (("DevEUI_uplink", "uplink"), ("DevEUI_downlink_Rejected", "downlinkStatus")):
        with pytest.raises(PatternError, match=f"the uplink has no Name, which {pattern}TopicPattern asks for"):
            made.render(report(kind))


def test_it_is_checked_as_the_other_patterns_are(connector: str) -> None:
    with pytest.raises(ValidationError, match="downlinkStatusTopicPattern"):
        config(connector, downlinkStatusTopicPattern="status/{DevEUI")
    long = "/".join("12345678")
    if connector == "actility-aws-iot":
        assert config(connector, downlinkStatusTopicPattern=long)
        with pytest.raises(ValidationError, match="8 slashes, and AWS IoT takes 7"):
            config(connector, downlinkStatusTopicPattern=long + "/9")
        with pytest.raises(ValidationError, match="257 bytes, and AWS IoT takes 256"):
            config(connector, downlinkStatusTopicPattern="x" * 257)


# ---- what comes back


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"downlinkTopicPattern": None}, False),
        ({"downlinkTopicPattern": "plant/{DevEUI}/{FPort}"}, True),
        ({"downlinkTopicPattern": "plant/{DevEUI}/{FPort}", "downlinkEnabled": False}, False),
        ({"downlinkStatusTopicPattern": "{Name}/{DevEUI}/down"}, True),
        ({"topics": [{"fPort": 5, "uplinkTopicPattern": "plant/five/down"}]}, True),
        ({"topics": [{"fPort": 5, "downlinkTopicPattern": "plant/five/up"}]}, True),
        ({"topics": [{"fPort": 5, "downlinkTopicPattern": "plant/five/up/to"}]}, False),
    ],
)
def test_what_it_sends_may_come_back_as_a_downlink(connector: str, values: dict[str, Any], expected: bool) -> None:
    assert config(connector, **values).comes_back is expected


def test_a_hash_lets_uplinks_of_any_levels_come_back() -> None:
    amqp = "actility-amqp-0.9.1-iot"
    assert config(amqp, downlinkTopicPattern="plant/#").comes_back
    assert not config(amqp, downlinkTopicPattern="#/down").comes_back


# ---- the FPort of downlinks that bring none


def entries(*topics: tuple[int, str | None]) -> list[dict[str, Any]]:
    return [{"fPort": port, "downlinkTopicPattern": text} for port, text in topics]


def ports(connector: str, *topics: tuple[int, str | None], **values: Any) -> DownlinkPorts:
    return DownlinkPorts(config(connector, topics=entries(*topics), **values))


def of(found: DownlinkPorts, connector: str, topic: str) -> int | None:
    return found.of(topic.replace("/", ".") if "amqp" in connector else topic)


def test_the_topic_of_a_port_tells_the_port(connector: str) -> None:
    found = ports(connector, (2, "plant/{DevEUI}/two"), (3, "three"), (4, None))
    for topic, port in (("plant/1/two", 2), ("three", 3), ("plant/1/down", None), ("elsewhere", None)):
        assert of(found, connector, topic) == port


def test_a_topic_that_is_for_several_tells_nothing(connector: str) -> None:
    found = ports(connector, (2, "plant/{CustomerID}/down"), (3, "both"), (4, "both"), (5, "five"))
    for topic, port in (("plant/1/down", None), ("both", None), ("five", 5)):
        assert of(found, connector, topic) == port


def test_a_port_that_no_downlink_may_have_is_none(connector: str) -> None:
    found = ports(connector, (0, "zero"), (225, "high"), (224, "highest"), (1, "lowest"))
    expected = {"zero": None, "high": None, "highest": 224, "lowest": 1}
    assert {topic: of(found, connector, topic) for topic in expected} == expected


async def test_a_downlink_without_a_port_is_for_that_of_its_topic_or_of_its_connection() -> None:
    def body(**fields: Any) -> bytes:
        return orjson.dumps({"DevEUI_downlink": {"DevEUI": LANE, "payload_hex": "02ff", **fields}})

    tell = EventLog().tell
    async with open_downlinks(Disk(), MemoryStore().append, tell) as downlinks:
        inbox = Inbox("plant", downlinks, 9)
        taken = [inbox.take(Incoming("t", body(), f_port=port)) for port in (2, None)]
        taken.append(inbox.take(Incoming("t", body(FPort=5), f_port=2)))
        assert [downlink.f_port for downlink in taken if isinstance(downlink, StoredDownlink)] == [2, 9, 5]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"uplinkTopicPattern": "plant/{DevEUI}/up"}, False),
        ({"uplinkTopicPattern": "plant/{DevEUI}/{FPort}"}, True),
        ({"uplinkTopicPattern": "plant/{DevEUI}/down"}, True),
        ({"uplinkTopicPattern": "{DevEUI}/all/down"}, True),
        ({"uplinkTopicPattern": "plant/{DevEUI}/down/2"}, False),
        ({"uplinkTopicPattern": "plant/{DevEUI}/down", "downlinkEnabled": False}, False),
        ({"uplinkTopicPattern": "u/{DevEUI}", "downlinkStatusTopicPattern": "plant/status/down"}, True),
        ({"uplinkTopicPattern": "u/{DevEUI}", "topics": [{"fPort": 2, "downlinkTopicPattern": "u/{DevEUI}"}]}, True),
        ({"uplinkTopicPattern": "u/1", "topics": [{"fPort": 2, "uplinkTopicPattern": "plant/1/down"}]}, True),
    ],
)
def test_what_would_come_back_is_known(connector: str, values: dict[str, Any], expected: bool) -> None:
    assert config(connector, **values).comes_back is expected
