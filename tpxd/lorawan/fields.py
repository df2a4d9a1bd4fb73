"""The names that stand in reports, and which of them was meant where one is nearly right.

Source: ThingPark X IoT Flow, "Messages"; the tunnel interface's own fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

_KNOWN: Final = """
    Time DevEUI FPort FCntUp LostUplinksAS ADRbit ACKbit MType FCntDn payload_hex mic_hex Lrcid LrrRSSI LrrSNR LrrESP
    SpFact Spfact SubBand Channel Chain airtime DevLrrCnt Lrrid Late LrrLAT LrrLON Lrrs Lrr Relayid RelayId
    DevLocTime DevLAT DevLON DevAlt DevAcc DevLocRadius DevAltRadius DevUlFCntUpUsed DevLocDilution DevAltDilution
    DevNorthVel DevEastVel NwGeolocAlgo NwGeolocAlgoUsed NwGeolocTdoaOpt CustomerID CustomerData BaseStationData
    ModelCfg DriverCfg InstantPER MeanPER DevAddr AckRequested rawMacCommands rawJoinRequest TxPower NbTrans Frequency
    DynamicClass ClassBPeriodicity UplinkDC UplinkDCSubBand AppSKey MaxWaitASResps PayloadEncryption AFCntDn
    BatteryLevel BatteryTime Margin payload points payloadDecodedError downlinkUrl DeliveryStatus DeliveryFailedCause1
    DeliveryFailedCause2 DeliveryFailedCause3 DeliveryFailedCause4 TransmissionSlot CorrelationID
    DownlinkRejectionCause Type Var1 Var2 TransmissionStatus LrrCnt LrrSuccessCnt LrrFailedCnt LrrFailedDistribution
    ID State CreationTime LastUpdateTime Occurrence Acked AddInfo1 LrrID PartnerID
    name tags loc lat lon alr pro ver doms mod app pId mId id code message unitId record
    DevEUI_uplink DevEUI_downlink_Sent DevEUI_downlink_Rejected DevEUI_location DevEUI_notification
    DevEUI_multicast_summary DevEUI_alarm BS_alarm
"""
KNOWN: Final = frozenset(_KNOWN.split())

_SHORTEST: Final = 4
"""Of shorter names, one letter is too much to be a slip."""

_FREE: Final = frozenset({"payload", "points"})
"""What stands inside of these is named by whoever made the device."""

_NAME: Final = re.compile(r"(?:^|\.|\[['\"])([A-Za-z_]\w*)")
_REGEX: Final = re.compile(r"=~\s*/(?:[^/\\]|\\.)*/")


@lru_cache(maxsize=1024)
def meant(name: str) -> str | None:
    """The known name from which this one differs only by case or one letter; None for a known one or where none is."""
    if name in KNOWN:
        return None
    small = name.lower()
    by_case = (known for known in sorted(KNOWN) if known.lower() == small)
    by_letter = (known for known in sorted(KNOWN) if _one_letter_apart(known.lower(), small))
    return next(by_case, None) or (next(by_letter, None) if len(name) > _SHORTEST else None)


def slips(expression: str) -> Iterator[tuple[str, str]]:
    """The names in a dotted path or a JSONPath that are nearly known ones, each with the one that was meant."""
    names = _NAME.findall(_REGEX.sub("", expression))
    if _FREE.isdisjoint(names):
        yield from ((name, known) for name in names if (known := meant(name)) is not None)


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter was replaced, added, left out, or has changed places with the next."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, others = one[at:], other[at:]
    swapped = rest[2:] == others[2:] and rest[:2] == others[1::-1]
    return rest[1:] == others[1:] or rest[1:] == others or rest == others[1:] or swapped
