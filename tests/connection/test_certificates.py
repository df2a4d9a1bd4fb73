"""When certificates end: what is shown, what is told, and how often."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connection.doubles import MemoryCursor, Peer, make_connection
from tests.peers import pki
from tpxd.connection.health import Health
from tpxd.connection.states import ConnectionState
from tpxd.connection.watches import EXPIRY_LOOK_S, CertificateEnd, CertificateWatch, earliest
from tpxd.connectors.parts.tls import TlsConfig
from tpxd.events import Event, EventLog, timestamp

ENDS = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)
CERTIFICATE = CertificateEnd("certificate", ENDS)


def looks(watch: CertificateWatch, *days_before: float, end: CertificateEnd = CERTIFICATE) -> list[str]:
    """What is told so many days before the end, one look after the other."""
    events = [watch.look("plant", end, end.at - timedelta(days=days)) for days in days_before]
    return ["" if event is None else event.message for event in events]


def test_the_earliest_end_counts_and_is_told_by_its_key() -> None:
    soon = pki.issue("plant", pki.ca(), client=True, expires=pki.NOW + timedelta(days=5)).certificate
    later = pki.ca().certificate
    assert earliest({"certificate": soon, "trustedCaCertificate": later}) == CertificateEnd(
        "certificate", pki.NOW + timedelta(days=5)
    )
    assert earliest({"trustedCaCertificate": later + soon}) == CertificateEnd(
        "trustedCaCertificate", pki.NOW + timedelta(days=5)
    )
    assert earliest({}) is None


def test_a_certificate_that_cannot_be_read_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert earliest({"certificate": "-----BEGIN CERTIFICATE-----"}) is None
    assert "the end of certificate is not watched" in caplog.text


def test_nothing_is_told_while_there_is_time() -> None:
    assert looks(CertificateWatch(), 400, 31, 30.01) == ["", "", ""]


def test_thirty_days_before_it_is_told_once() -> None:
    told = looks(CertificateWatch(), 30, 29.9, 20, 8)
    assert told == ["plant: certificate expires in 30 days, on 2027-01-31 12:00 UTC: renew it", "", "", ""]


def test_from_seven_days_on_it_is_told_each_day() -> None:
    told = looks(CertificateWatch(), 7, 6.99, 6.01, 6, 5.5, 5, 1.5)
    assert [bool(text) for text in told] == [True, False, False, True, False, True, True]
    assert "expires in 7 days" in told[0]
    assert "expires in 36 hours" in told[6]


def test_the_end_is_an_error_each_day() -> None:
    watch = CertificateWatch()
    assert looks(watch, 0, -0.5, -1, -1.9)[1::2] == ["", ""]
    event = watch.look("plant", CERTIFICATE, ENDS + timedelta(days=3))
    assert event is not None
    assert (event.kind, event.connection, event.level) == ("certificate", "plant", logging.ERROR)
    assert event.message == "plant: certificate has expired on 2027-01-31 12:00 UTC: renew it"
    assert event.more == {"field": "certificate", "certificateExpires": "2027-01-31T12:00:00.000Z"}


def test_a_renewed_certificate_is_told_anew_when_its_time_comes() -> None:
    watch = CertificateWatch()
    renewed = CertificateEnd("certificate", ENDS + timedelta(days=60))
    assert looks(watch, 20) != [""]
    assert looks(watch, 31, end=renewed) == [""]
    assert looks(watch, 30, 30, end=renewed)[0] != ""


async def test_it_looks_each_hour(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    begun = (ENDS - timedelta(days=2)).timestamp() - trio.current_time()
    health = Health("plant", MemoryCursor(), events.append, wall=lambda: begun + trio.current_time())
    with trio.move_on_after(4 * 86_400 + EXPIRY_LOOK_S):
        await CertificateWatch().follow("plant", CERTIFICATE, health)
    assert [event.level for event in events] == [logging.WARNING] * 2 + [logging.ERROR] * 3


async def test_a_connection_shows_the_end_of_its_certificates_and_forgets_it_without_them() -> None:
    soon = pki.issue("plant", pki.ca(), client=True, expires=pki.NOW + timedelta(days=5))
    connection = make_connection(Peer(), MemoryCursor())
    without, told = connection.file, trio.Event()
    connection.health.tell = lambda event: told.set() if event.kind == "certificate" else None
    values = {"certificate": soon.certificate, "privateKey": soon.private_key}
    connection.file = without.model_copy(update={"configuration": TlsConfig.model_validate(values)})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        with trio.fail_after(10):
            await told.wait()
        assert connection.health.to_document()["certificateExpires"] == timestamp(
            soon.x509.not_valid_after_utc.timestamp()
        )
        nursery.cancel_scope.cancel()
    connection.health.enter(ConnectionState.CLOSED)
    connection.file = without
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await wait_all_tasks_blocked()
        assert connection.health.to_document()["certificateExpires"] is None
        nursery.cancel_scope.cancel()


async def test_the_same_is_not_told_again_by_the_next_version_of_the_file(autojump_clock: MockClock) -> None:
    log = EventLog()
    connection = make_connection(Peer(), MemoryCursor())
    connection.health.tell = log.tell
    expired = CertificateEnd("certificate", datetime.now(UTC) - timedelta(days=1))
    for _ in range(2):
        with trio.move_on_after(60):
            await connection.certificates.follow("plant", expired, connection.health)
    assert [event.kind for event in log.newest()] == ["certificate"]
