"""Secrets that people refer to in a file: where they come from, and the types of fields that hold one.

    password = "literal"    or { env = "X" }    or { file = "/path" }    or { credential = "name" }

A secret is resolved while its model is validated; `SecretSources`, given as pydantic's validation context, says where:

    PlantConfig.model_validate(values, context=SecretSources(Path("/etc/tpxd/connections.d")))

No secret shows in `repr`, in JSON, or in an error. Source of credentials: systemd.exec(5), CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import PlainSerializer, PlainValidator, SecretStr, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from tpxd.errors import unreadable

MAX_SECRET_BYTES = 64 * 1024
UNRESOLVED = "secret_unresolved"
"""The type of a pydantic error that means: the reference is well written, what it names is not there."""

_STARS: Final = re.compile(r"\*{3,}")
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
NO_HEX_KEY: Final = "is not a key of 32 hex digits; it has {} characters"
DASHES: Final = "has dashes, which are no part of a key; it is used without them"

Fingerprint = bytes | None
"""A digest of a file's content; None when it could not be read."""

hidden: Final = PlainSerializer(lambda _: "**********", return_type=str)


@dataclass(slots=True)
class SecretSources:
    """Where the references of secrets lead.

    Attributes:
        directory: what a relative `file` is relative to.
        credentials: systemd's directory of credentials, None outside of a unit that has some.
        lenient: read what does not resolve as an empty secret instead of refusing it.
        forgiving: take what earlier versions took and this one refuses; for a file that ran before an upgrade.
        files: filled while validating: the fingerprint of every file that a reference names.
    """

    directory: Path = field(default_factory=Path)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    credentials: Path | None = field(default_factory=lambda: _credentials_directory())
    lenient: bool = False
    forgiving: bool = False
    files: dict[Path, Fingerprint] = field(default_factory=dict)


def _credentials_directory() -> Path | None:
    text = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(text) if text else None


def resolve(value: Any, info: ValidationInfo) -> str | None:
    """The secret's text, or None where it does not resolve and the context is lenient."""
    sources = info.context if isinstance(info.context, SecretSources) else SecretSources()
    match value:
        case SecretStr():
            return value.get_secret_value()
        case str():
            if _STARS.fullmatch(value) and not sources.forgiving:
                raise ValueError("is the mask that stands for a secret in exported files; write the secret itself")
            return value
        case {"env": str(name), **rest} if not rest:
            # a password that stands where its variable's name belongs is not repeated
            place = f"the environment variable {name if _VARIABLE.fullmatch(name) else 'that it names'}"
            text, missing = sources.environment.get(name), f"{place} is not set"
        case {"file": str(name), **rest} if not rest:
            place = f"{sources.directory / name}"
            text, missing = _read(sources.directory / name, sources)
        case {"credential": str(name), **rest} if not rest and name not in ("", ".", "..") and "/" not in name:
            place = f"the credential {name}"
            if sources.credentials is None:
                text, missing = None, f"no credentials were passed to this process, {name} is wanted (LoadCredential=)"
            else:
                text, missing = _read(sources.credentials / name, sources)
        case _:
            raise ValueError('is no secret; write "text", { env = "X" }, { file = "/path" } or { credential = "name" }')
    if text is not None and not (text := re.sub(r"\r?\n\Z", "", text)):
        # a file that is written anew is empty for a moment, and no password is not the password that was meant
        text, missing = None, f"{place} is empty"
    if text is None and not sources.lenient:
        raise PydanticCustomError(UNRESOLVED, "{missing}", {"missing": missing})
    return text


def _read(path: Path, sources: SecretSources) -> tuple[str | None, str]:
    """The file's text, or None and what stands in the way; its fingerprint is kept in both cases."""
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        sources.files[path] = None
        return None, f"{path} {unreadable(error) if isinstance(error, OSError) else f'cannot be read: {error}'}"
    sources.files[path] = sha256(content).digest()
    try:
        return content.decode(), ""
    except UnicodeDecodeError:
        return None, f"{path} is not UTF-8 text"


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # opening a FIFO would wait for its writer
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"it holds more than {MAX_SECRET_BYTES} bytes")
    return content


def fingerprint(path: Path) -> Fingerprint:
    """What `SecretSources.files` would hold for this file now."""
    try:
        return sha256(_content(path)).digest()
    except (OSError, ValueError):
        return None


def _secret(value: Any, info: ValidationInfo) -> SecretStr:
    return SecretStr(resolve(value, info) or "")


def _pem(value: Any, info: ValidationInfo) -> SecretStr:
    text = resolve(value, info)
    if text is not None and "-----BEGIN " not in text:
        raise ValueError('is not PEM text; it has no line "-----BEGIN …-----"')
    return SecretStr(in_lines(text or ""))


_PEM_BLOCK: Final = re.compile(r"[ \t]*-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_PEM_LINE: Final = 64


def in_lines(pem: str) -> str:
    """PEM text in lines, as programs read it; ThingPark's examples print it on one, some tools with `\\n` in it."""
    text = pem.replace("\\r", "").replace("\\n", "\n")

    def block(found: re.Match[str]) -> str:
        name, body = found[1], found[2]
        if ":" in body or (body.startswith(("\n", "\r\n")) and body.endswith("\n")):
            return found[0]
        letters = "".join(body.split())
        lines = [letters[at : at + _PEM_LINE] for at in range(0, len(letters), _PEM_LINE)]
        return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----\n"])

    return _PEM_BLOCK.sub(block, text)


def _hex_key(value: Any, info: ValidationInfo) -> SecretStr:
    text = resolve(value, info)
    digits = hex_digits(text or "")
    if text is not None and digits is None:
        raise ValueError(NO_HEX_KEY.format(len(text)))
    return SecretStr(digits or "")


def hex_digits(key: str) -> str | None:
    """The 32 hex digits of a key, which people also write with dashes; None where it has others, or not as many."""
    digits = key.replace("-", "")
    return digits if re.fullmatch(r"[0-9A-Fa-f]{32}", digits) else None


def _uuid(value: Any, info: ValidationInfo) -> SecretStr:
    text = resolve(value, info)
    if text is not None and not re.fullmatch(r"[A-Za-z0-9-]{16,64}", text):
        raise ValueError(f"is not 16 to 64 of A-Z a-z 0-9 -; it has {len(text)} characters")
    return SecretStr(text or "")


def forgives(info: ValidationInfo) -> bool:
    """Whether what only this version refuses is let pass."""
    return isinstance(info.context, SecretSources) and info.context.forgiving


def plain(secret: SecretStr | None) -> str | None:
    """The secret's text; one that was not resolved, which only a lenient check allows, is as good as none."""
    return secret.get_secret_value() or None if secret is not None else None


def schema(what: str) -> WithJsonSchema:
    reference = [
        {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
        for key in ("env", "file", "credential")
    ]
    return WithJsonSchema({"anyOf": [{"type": "string", "format": what, "writeOnly": True}, *reference]})


Secret = Annotated[SecretStr, PlainValidator(_secret), hidden, schema("password")]
"""A text that never shows: written down, or a reference to an environment variable, a file or a systemd credential."""

Pem = Annotated[SecretStr, PlainValidator(_pem), hidden, schema("pem")]
"""A secret that holds PEM text: a certificate, a chain of them, or a key."""

HexKey = Annotated[SecretStr, PlainValidator(_hex_key), hidden, schema("32 hex digits")]
"""A secret of 32 hex digits, as the LRC's keys are."""

DownlinkUuid = Annotated[SecretStr, PlainValidator(_uuid), hidden, schema("16 to 64 letters and digits")]
"""The last part of a downlink URL: whoever knows it may send downlinks to the devices."""
