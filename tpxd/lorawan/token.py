"""Tokens: how the LRC and an application server prove to each other that they hold the same key.

A report's Token covers a few fields of its body, then the query string, decoded, then the key; a downlink's Token the
query string and the key. Nothing separates the parts. It is SHA-256 in lower-case hex. Source: LRC tunnel interface,
uplink and downlink security.

    Report                   Fields that the Token covers
    DevEUI_uplink            CustomerID, DevEUI, FPort, FCntUp, payload_hex
    DevEUI_downlink_Sent     CustomerID, DevEUI, FPort, FCntDn
    DevEUI_location          CustomerID, DevEUI in lower case
    DevEUI_notification      CustomerID, DevEUI

A missing FPort counts as 0, everything else that is missing as nothing. For all other types, and for join requests
(which come as DevEUI_uplink), no rule is documented; those that are plausible are tried one after the other.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from tpxd.errors import TokenError
from tpxd.lorawan.reports import DOWNLINK_SENT, LOCATION, NOTIFICATION, UPLINK, Report, field_text
from tpxd.lorawan.uplink import Uplink

Pairs = Sequence[tuple[str, str]]
"""Names and values of a query string, decoded, in the order in which they are sent, without the Token."""


def uplink_token(kind: str, fields: Mapping[str, Any], query: Pairs, key: str) -> str:
    """The Token of a report that is posted with this query.

    Where no rule is documented it covers CustomerID and DevEUI, as that of a notification does.
    """
    elements = _documented_elements(kind, fields)
    if elements is None:
        elements = field_text(fields, "CustomerID") + field_text(fields, "DevEUI")
    return _digest(elements + _query_text(query), key)


def downlink_token(pairs: Pairs, key: str) -> str:
    """The Token of a downlink request with these parameters; percent-encode them afterwards, and put the Token last."""
    return _digest(_query_text(pairs), key)


@dataclass(slots=True)
class Claim:
    """What a query says of its sender, as far as that can be known without the body.

    Attributes:
        pairs: names and values, decoded, in order.
        named: the same by name.
        keys: the spellings of the key that goes with the AS_ID; None where it names none.
    """

    pairs: Pairs
    named: Mapping[str, str]
    keys: Sequence[str] | None

    @property
    def as_id(self) -> str | None:
        """Who the sender says it is."""
        return self.named.get("AS_ID")


class TokenCheck:
    """Decides whether a report comes from an LRC that holds one of our keys; where none is set, everything passes.

    Types with a documented rule always need a valid Token. All others need one that fits a plausible rule, unless
    `accept_unsigned`: then any Token or none will do, but an AS_ID that is there must be known, and a Time that is
    there must be right.

    Args:
        keys: AS_ID to key, as entered in ThingPark. The LRC hashes a key as it was entered, and some servers do not:
            lower case and without dashes are tried too.
        max_time_deviation_s: how many seconds the LRC's Time may differ from ours.
        accept_unsigned: let report types without a documented rule in without a valid Token.
    """

    def __init__(self, keys: Mapping[str, str], max_time_deviation_s: float, accept_unsigned: bool = False) -> None:
        self._keys = {as_id: _spellings(key) for as_id, key in keys.items()}
        self.max_time_deviation_s = max_time_deviation_s
        self._accept_unsigned = accept_unsigned

    def check_query(self, query: str, now_s: float) -> Claim | None:
        """Refuse what needs no look at the body; None where there are no keys, so that nothing is to be checked.

        Args:
            query: as received: percent-encoded, without the question mark.
            now_s: seconds since the epoch.

        Raises:
            TokenError: AS_ID, Time or Token are missing though every report needs them, the AS_ID is not known, the
                Time is wrong, or a parameter is there twice; `reason` is `missing`, `as_id`, `time` or `token`. The
                message names the AS_ID, and for `time` the difference in seconds.
        """
        if not self._keys:
            return None
        pairs = _split(query)
        named = dict(pairs)
        as_id, time = named.get("AS_ID"), named.get("Time")
        if len(named) != len(pairs):
            raise _refusal("token", as_id, "the query names a parameter twice")
        keys = None if as_id is None else self._keys.get(as_id)
        if as_id is not None and keys is None:
            raise _refusal("as_id", as_id, f"AS_ID {_shown(as_id)} is not known", "add it to tunnel_keys in [lrc]")
        if not self._accept_unsigned:
            _check_signed(named)
        if time is not None:
            self._check_time(time, now_s, as_id)
        return Claim(pairs, named, keys)

    def check_report(self, claim: Claim | None, report: Report) -> str | None:
        """Return when the report is what the sender signed; the Token, where a documented rule verified it.

        Raises:
            TokenError: it is not; `reason` is `missing`, `token` or `undocumented`.
        """
        if claim is None:
            return None
        _check_dev_eui(claim, report)
        elements = _documented_elements(report.kind, report.fields)
        if elements is None and self._accept_unsigned:
            return None
        _check_signed(claim.named)
        _check_port(claim, report)
        _check_token(elements, claim, report)
        return None if elements is None else claim.named["Token"]

    def _check_time(self, time: str, now_s: float, as_id: str | None) -> None:
        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            raise _refusal("time", as_id, f"Time {_shown(time)} of {_named(as_id)} is no date and time") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        ahead_s = moment.timestamp() - now_s
        if abs(ahead_s) > self.max_time_deviation_s:
            raise _refusal(
                "time",
                as_id,
                f"Time of {_named(as_id)} is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this "
                f"server's clock; {self.max_time_deviation_s:g} s are allowed",
                "set both clocks by NTP, or raise max_time_deviation in [lrc]",
            )


def _check_signed(named: Mapping[str, str]) -> None:
    missing = [name for name in ("AS_ID", "Time", "Token") if name not in named]
    if missing:
        raise _refusal(
            "missing",
            named.get("AS_ID"),
            f"the query of {_named(named.get('AS_ID'))} has no {' and no '.join(missing)}",
            "switch security on for this AS in ThingPark; tunnel_keys in [lrc] asks for it",
        )


def _check_dev_eui(claim: Claim, report: Report) -> None:
    queried, dev_eui = claim.named.get("LrnDevEui"), report.fields.get("DevEUI")
    if queried is not None and dev_eui is not None and queried.upper() != str(dev_eui).upper():
        message = (
            f"LrnDevEui {_shown(queried)} of {_named(claim.as_id)} is not the body's DevEUI {_shown(str(dev_eui))}"
        )
        raise _refusal("token", claim.as_id, message)


def _check_port(claim: Claim, report: Report) -> None:
    """The FPort of an uplink stands in the query too, which keeps it apart from the counter: 5|12 is not 51|2."""
    queried, port = claim.named.get("LrnFPort"), field_text(report.fields, "FPort")
    if report.kind == UPLINK and queried is not None and port and queried != port:
        message = f"LrnFPort {_shown(queried)} of {_named(claim.as_id)} is not the body's FPort {_shown(port)}"
        raise _refusal("token", claim.as_id, message)


def _check_token(documented: str | None, claim: Claim, report: Report) -> None:
    as_id, pairs = claim.as_id, claim.pairs
    name, token = pairs[-1]
    if name != "Token":
        raise _refusal("token", as_id, f"the query of {_named(as_id)} goes on after its Token, which must be the last")
    query = _query_text(pairs[:-1])
    plausible = [documented] if documented is not None else _plausible_elements(report.fields)
    for elements in plausible:
        for key in claim.keys or ():
            # An equals sign would let body and query trade text, and turn a downlink's Token into a report's.
            if hmac.compare_digest(_digest(elements + query, key).encode(), _bytes(token)) and "=" not in elements:
                return
    if documented is not None:
        raise _refusal(
            "token",
            as_id,
            f"the Token of {_named(as_id)} does not fit this {report.kind}",
            "compare the key in tunnel_keys with the AS's key in ThingPark",
        )
    raise _refusal(
        "undocumented",
        as_id,
        f"the Token of {_named(as_id)} fits no rule known for this {report.kind}",
        'no rule is documented for this type of report; unsigned_reports = "accept" in [lrc] lets it in',
    )


def _documented_elements(kind: str, fields: Mapping[str, Any]) -> str | None:
    """The body's part of what is hashed; None where no rule is documented."""
    if kind == UPLINK:
        counter = field_text(fields, "FCntUp")
        payload = field_text(fields, "payload_hex")
        # Only what has neither counter nor payload: no uplink with data gets round its Token by calling itself a join.
        if "rawJoinRequest" in fields and not counter and not payload:
            return None
        return f"{field_text(fields, 'CustomerID')}{field_text(fields, 'DevEUI')}{_port(fields)}{counter}{payload}"
    if kind == DOWNLINK_SENT:
        counter = field_text(fields, "FCntDn")
        return f"{field_text(fields, 'CustomerID')}{field_text(fields, 'DevEUI')}{_port(fields)}{counter}"
    if kind == LOCATION:
        return field_text(fields, "CustomerID") + field_text(fields, "DevEUI").lower()
    if kind == NOTIFICATION:
        return field_text(fields, "CustomerID") + field_text(fields, "DevEUI")
    return None


def _plausible_elements(fields: Mapping[str, Any]) -> Iterator[str]:
    """What an LRC might hash of a report without a documented rule, judging by those that have one."""
    customer = field_text(fields, "CustomerID")
    # A base station has no DevEUI; something that names it must be covered, or any report would fit.
    target = field_text(fields, "DevEUI") or field_text(fields, "LrrID")
    counters = dict.fromkeys(("", field_text(fields, "FCntUp"), field_text(fields, "FCntDn")))
    for spelling in dict.fromkeys((target, target.lower())):
        for port in ("", _port(fields)):
            for counter in counters:
                yield customer + spelling + port + counter


def _port(fields: Mapping[str, Any]) -> str:
    return field_text(fields, "FPort") or "0"


def _split(query: str) -> list[tuple[str, str]]:
    """The decoded names and values of a query string; `parse_qsl` does the same at four times the cost."""
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if "%" in name or "+" in name:
            name = _decoded(name)
        if "%" in value or "+" in value:
            value = _decoded(value)
            if name == "Time":
                # No Time has a space; it was a plus sign before some hop decoded it, or did not encode it.
                value = value.replace(" ", "+")
        pairs.append((name, value))
    return pairs


def _decoded(text: str) -> str:
    # These two are all that an LRC has to escape, and they cannot become part of another escape.
    text = text.replace("+", " ").replace("%3A", ":").replace("%2B", "+")
    return unquote(text) if "%" in text else text


def _query_text(pairs: Pairs) -> str:
    return "&".join([f"{name}={value}" for name, value in pairs])


def _digest(text: str, key: str) -> str:
    return sha256(_bytes(text + key)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _spellings(key: str) -> tuple[str, ...]:
    """The key as entered, then what others make of it; each once."""
    plain = key.replace("-", "")
    return tuple(dict.fromkeys((key, key.lower(), plain, plain.lower())))


def _refusal(reason: str, as_id: str | None, message: str, hint: str | None = None) -> TokenError:
    return TokenError(message, reason=reason, as_id=None if as_id is None else as_id[:64], hint=hint)


def _named(as_id: str | None) -> str:
    return "an unnamed AS" if as_id is None else f"AS_ID {_shown(as_id)}"


def _shown(text: str) -> str:
    """What a stranger sent, short and on one line."""
    return ascii(text if len(text) <= 64 else text[:61] + "...")


def tunnel_query(uplink: Uplink, *, as_id: str, key: str | None, now: datetime | None = None) -> str:
    """The query string of one report: `LrnDevEui`, `LrnFPort`, `LrnInfos`, and with a key `AS_ID`, `Time`, `Token`.

    `LrnInfos` is what the LRC sent, where it sent one.

    Args:
        key: the Tunnel Interface Authentication Key; None leaves the report unsigned.
        now: the time to sign with; default now.
    """
    fields = uplink.fields
    dev_eui = field_text(fields, "DevEUI") or uplink.lane
    pairs = [
        ("LrnDevEui", dev_eui.lower() if uplink.kind == LOCATION else dev_eui),
        ("LrnFPort", field_text(fields, "FPort") or "0"),
        ("LrnInfos", uplink.lrn_infos or f"{as_id or 'TPXD'}-1-{uplink.seq}"),
    ]
    if key is not None:
        moment = (now or datetime.now(UTC)).isoformat(timespec="milliseconds")
        pairs += [("AS_ID", as_id), ("Time", moment)]
        pairs.append(("Token", uplink_token(uplink.kind, fields, pairs, key)))
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
