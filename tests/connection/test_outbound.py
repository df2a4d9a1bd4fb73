"""Each report carries the address for downlinks, in every form, and is otherwise as it came."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.flow import Flow
from tpxd.connection.outbound import Format, Outbound, format_of, url_field
from tpxd.lorawan.reports import DOWNLINK_REJECTED, DOWNLINK_SENT
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Filtered
from tpxd.timing import ClockWatch

DEV_EUI = "70B3D5E75E00A1C4"
URL = "http://edge.example:8090/iot-flow/downlinkMessages/6b1f0c9e-0000-4000-8000-00000000a1c4"
INSERTED = b',"downlinkUrl":"' + URL.encode() + b'"'

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["downlinkUrl", '"downlinkUrl"', "}", "{}", '"}', "\\"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8) | st.just("downlinkUrl"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
names = st.text(max_size=12).filter(lambda name: name != "downlinkUrl")
documents = st.dictionaries(names, values, max_size=5)
kinds = st.sampled_from(["DevEUI_uplink", "DevEUI_location", "DevEUI_downlink_Sent", "x"])
blanks = st.text(" \t\r\n", max_size=4)


def outbound(
    form: Format = "whole", url: str | None = URL, connection: str = "plant", flow: Flow | None = None
) -> Outbound:
    clock = ClockWatch(lambda: None)
    return Outbound(flow or Flow(), form, None, clock, connection, url_field=url_field(url))


def uplink(body: bytes, kind: str = "DevEUI_uplink", recipient: str | None = None) -> Uplink:
    return Uplink(1, 0, kind, DEV_EUI, "", body, recipient=recipient)


def sent(how: Outbound, stored: Uplink) -> bytes:
    body = how.decide(stored)
    assert isinstance(body, bytes)
    return body


@given(kinds, documents, st.booleans(), st.none() | st.integers(0, 3), st.booleans(), blanks, blanks, blanks)
def test_a_report_is_as_it_came_but_for_the_address(
    kind: str,
    fields: dict[str, Any],
    escaped: bool,
    indent: int | None,
    compact: bool,
    before: str,
    inside: str,
    after: str,
) -> None:
    separators = (",", ":") if compact else None
    inner = json.dumps(fields, ensure_ascii=escaped, indent=indent, separators=separators)
    body = f'{before}{{{inside}"{kind}":{inner}{inside}}}{after}'.encode()
    found = sent(outbound(), uplink(body, kind))
    assert orjson.loads(found) == {kind: fields | {"downlinkUrl": URL}}
    field = INSERTED if fields else INSERTED[1:]
    begin, _, end = found.rpartition(field)
    assert begin + end == body
    assert sent(outbound(url=None), uplink(body, kind)) == body


@given(documents, documents, values)
def test_an_address_that_is_there_already_stays(before: dict[str, Any], after: dict[str, Any], theirs: Any) -> None:
    body = orjson.dumps({"DevEUI_uplink": before | {"downlinkUrl": theirs} | after})
    assert sent(outbound(), uplink(body)) == body


@given(documents)
def test_the_form_without_the_root_has_it_too(fields: dict[str, Any]) -> None:
    found = sent(outbound("fields"), uplink(orjson.dumps({"DevEUI_uplink": fields})))
    assert list(orjson.loads(found).items()) == [*fields.items(), ("downlinkUrl", URL)]
    assert orjson.loads(sent(outbound("fields", url=None), uplink(orjson.dumps({"DevEUI_uplink": fields})))) == fields
    theirs = uplink(orjson.dumps({"DevEUI_uplink": {"downlinkUrl": 7} | fields}))
    assert orjson.loads(sent(outbound("fields"), theirs)) == {"downlinkUrl": 7} | fields


@given(st.dictionaries(names, values, max_size=3))
def test_a_decoded_payload_alone_is_nothing_but_the_payload(payload: dict[str, Any]) -> None:
    body = orjson.dumps({"DevEUI_uplink": {"DevEUI": DEV_EUI, "payload": payload}})
    assert orjson.loads(sent(outbound("payload"), uplink(body))) == payload


def test_without_a_decoded_payload_the_report_goes_out_whole() -> None:
    body = b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4","payload":null}}\n'
    assert sent(outbound("payload"), uplink(body)) == body[:-3] + INSERTED + b"}}\n"


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({}, "whole"),
        ({"sendMetadata": True}, "fields"),
        ({"sendRawDecodedFormat": True}, "payload"),
        ({"sendMetadata": True, "sendRawDecodedFormat": True}, "fields"),
    ],
)
def test_the_forms_that_a_file_may_ask_for(settings: dict[str, bool], form: str) -> None:
    assert format_of(ConnectorConfig.model_validate(settings)) == form


# ---- what became of a connection's own downlink


@pytest.mark.parametrize("form", ["whole", "fields", "payload"])
def test_a_verdict_goes_to_the_connection_of_its_downlink_alone(form: Format) -> None:
    body = b'{"DevEUI_downlink_Rejected":{"DevEUI":"70B3D5E75E00A1C4","DownlinkRejectionCause":"no"}}'
    verdict = uplink(body, DOWNLINK_REJECTED, "plant")
    narrow = Flow.model_validate({"matchers": [{"type": "key", "key": "lora:0000000000000000"}]})
    assert outbound(form).decide(verdict) == body
    assert outbound(form, flow=narrow).decide(verdict) == body, "whatever its flow takes"
    for other in ("office", "plan", "plant2", ""):
        assert outbound(form, connection=other).decide(verdict) is Filtered.RECIPIENT


@pytest.mark.parametrize("form", ["whole", "fields", "payload"])
def test_the_report_of_its_own_downlink_goes_out_as_it_is_whatever_the_flow_takes(form: Format) -> None:
    narrow = Flow.model_validate({"matchers": [{"type": "report", "reports": ["DevEUI_uplink"]}]})
    plant = outbound(form, flow=narrow)
    plant.own = lambda report: report.fields["CorrelationID"] == "A1"
    own, other = (
        uplink(orjson.dumps({DOWNLINK_SENT: {"DevEUI": DEV_EUI, "CorrelationID": id}}), DOWNLINK_SENT)
        for id in ("A1", "A2")
    )
    assert plant.decide(own) == own.body
    assert plant.decide(other) is Filtered.FLOW


def test_a_verdict_of_the_lrc_itself_goes_where_uplinks_go() -> None:
    body = b'{"DevEUI_downlink_Rejected":{"DevEUI":"70B3D5E75E00A1C4"}}'
    for connection in ("plant", "office"):
        assert sent(outbound(connection=connection), uplink(body, DOWNLINK_REJECTED)) == body[:-2] + INSERTED + b"}}"
