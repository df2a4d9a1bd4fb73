"""The kept corpus: one directory a target, one file an input; small on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The inputs of one target, by name."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]
