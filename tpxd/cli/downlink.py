"""`tpxd downlink`."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from tpxd.cli.daemon_client import Declined, ask, document_of
from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.log import visible
from tpxd.lorawan.on_air import in_words, went_well

POLL_S: Final = 0.2


class Wait(StrEnum):
    """What to wait for: the LRC's answer, or the report that the device was sent to."""

    LRC = "lrc"
    SENT = "sent"


class Unanswered(Declined):
    """What was waited for did not come in time."""


def downlink(
    dev_eui: Annotated[str, typer.Argument(metavar="DEVEUI", help="16 hex digits, in any notation.")],
    payload: Annotated[str, typer.Option("--hex", metavar="HEX", help="The payload.")],
    port: Annotated[int, typer.Option(metavar="FPORT", help="1 to 224.")],
    confirmed: Annotated[bool, typer.Option("--confirmed", help="The device has to acknowledge it.")] = False,
    flush: Annotated[bool, typer.Option("--flush", help="Let it replace what is queued for the device.")] = False,
    validity: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Drop it after so many seconds, or at a date and time.")
    ] = None,
    wait: Annotated[
        Wait | None,
        typer.Option("--wait", help="Wait for the LRC's answer; with =sent until it told what became of it on air."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="The longest wait, in seconds.")] = 60.0,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Let the running daemon send a downlink to a device; it is on the daemon's disk when this returns.

    The exit code is 1 when the downlink is wrong or rejected at once, and when what was waited for did not come: the
    LRC refused it, it expired, it was not transmitted (a multicast one: not by all base stations), or the time ran out.
    """
    fields = {
        "DevEUI": dev_eui,
        "FPort": port,
        "payload_hex": payload,
        "Confirmed": int(confirmed) or None,
        "FlushDownlinkQueue": int(flush) or None,
        "ValidityTime": validity,
    }
    body = orjson.dumps({"DevEUI_downlink": {name: value for name, value in fields.items() if value is not None}})
    response = ask(config, "POST", "/downlinks", body)
    downlink = document_of(response)
    if response.status_code != 202:
        raise Declined(str(downlink.get("message")))
    if wait is not None:
        downlink = _await(config, downlink, wait, time.monotonic() + timeout)
    print(orjson.dumps(downlink).decode() if json else _line(downlink))
    if downlink["state"] == "rejected" or (wait is not None and not _went_well(downlink, wait)):
        raise typer.Exit(1)


def _await(config: Path, downlink: dict[str, Any], wait: Wait, deadline: float) -> dict[str, Any]:
    """Ask for the downlink until it is as far as it can come."""
    while not _is_over(downlink, wait):
        if time.monotonic() >= deadline:
            raise Unanswered(
                f"no answer in time; {_line(downlink)}", hint=f"it goes on: tpxd trace {downlink['DevEUI']}"
            )
        time.sleep(POLL_S)
        response = ask(config, "GET", f"/downlinks/{downlink['id']}")
        if response.status_code != 200:
            raise Declined(str(document_of(response).get("message")))
        downlink = document_of(response)
    return downlink


def _is_over(downlink: dict[str, Any], wait: Wait) -> bool:
    if wait is Wait.LRC or (downlink["final"] and downlink["state"] != "sent"):
        return bool(downlink["final"])
    return downlink["transmitted"] is not None


def _went_well(downlink: dict[str, Any], wait: Wait) -> bool:
    if wait is Wait.LRC or downlink["state"] != "sent":
        return bool(downlink["state"] == "sent")
    return went_well(downlink["transmitted"])


def _line(downlink: dict[str, Any]) -> str:
    """A downlink as people read it."""
    words = [f"downlink {downlink['id']} to {downlink['DevEUI']} is {downlink['state']}"]
    if downlink["cause"]:
        words[0] += f": {visible(downlink['cause'])}"
    if downlink["doubts"]:
        words.append(f"written {downlink['doubts']} times without an answer")
    if downlink["transmitted"]:
        words.append(visible(in_words(downlink["transmitted"])))
    return "; ".join(words)
