"""JSONPath over reports, for patterns and matchers: what does not fit a report's types finds nothing in it.

Its regular expressions (`=~`, match(), search()) are bounded, see `bounded_regex`. One that takes too long on the
uplinks of one device three times within ten minutes is not tried on that device's for as long.

Source: python-jsonpath, whose dialect has filters, `=~`, `in` and `contains`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jsonpath
import regex
from jsonpath.filter import BaseExpression, FunctionExtension, RegexLiteral, StringLiteral
from jsonpath.function_extensions import ExpressionType, FilterFunction
from jsonpath.stream import TokenStream
from jsonpath.token import TOKEN_RE_FLAGS

from tpxd.errors import TooSlow
from tpxd.lorawan.bounded_regex import BUDGET_S, BoundedRegex, Budget, Overrun
from tpxd.lorawan.uplink import AnyReport

OVERRUNS: Final = 3
REST_S: Final = 600.0
MAX_LANES: Final = 1_000
"""Devices on whose uplinks an expression took too long, the newest ones."""
BROUGHT_CHARACTERS: Final = 100
"""The longest regular expression that an uplink may bring, where a file of before has it so."""


class JsonPath:
    """A path as people write it.

    Args:
        forgiving: take expressions that earlier versions took and this one refuses; see `BoundedRegex`.

    Attributes:
        nested: the regular expressions of it in which a repetition stands inside of another.

    Raises:
        ValueError: it is none; why, in one line.
    """

    def __init__(self, text: str, *, monotonic: Callable[[], float] = time.monotonic, forgiving: bool = False) -> None:
        self._budget = Budget()
        self._monotonic = monotonic
        self._overruns: dict[str, list[float]] = {}
        parser = _Parser(self._budget, forgiving)
        try:
            self._query = parser.env.compile(text)
        except (jsonpath.JSONPathError, ValueError, OverflowError) as error:
            # The last two come from numbers that are none, or that are too large, and from regular expressions.
            reason = str(error).partition("\n")[0]
            raise ValueError(f'"{text}" is no JSONPath: {reason}') from error
        self.nested = tuple(each.pattern for each in parser.expressions.values() if each.nested)

    def values(self, uplink: AnyReport, *, in_fields_too: bool = False) -> Iterator[Any]:
        """What it finds in a report, in order, up to where a filter meets types that it cannot compare.

        Args:
            in_fields_too: after that, what it finds inside the root key.

        Raises:
            TooSlow: its regular expressions take too long on this uplink, or took too long on others of this device.
        """
        self._refuse_resting(uplink.lane)
        self._budget.begin()
        try:
            yield from self._found(uplink.document)
            if in_fields_too:
                yield from self._found(uplink.fields)
        except Overrun:
            self._note_overrun(uplink.lane)
            raise TooSlow(f"a regular expression took longer than {BUDGET_S * 1000:g} ms on it", hint=HINT) from None

    def _found(self, document: Mapping[str, Any]) -> Iterator[Any]:
        try:
            for match in self._query.finditer(document):
                yield match.obj
        except (jsonpath.JSONPathError, TypeError):
            # The library leaves the type to Python where `in` and `contains` look into a text.
            return

    def _refuse_resting(self, lane: str) -> None:
        overruns = self._overruns.get(lane, ())
        if len(overruns) < OVERRUNS:
            return
        if self._monotonic() - overruns[-1] < REST_S:
            message = f"a regular expression rests for its device, since it took too long {OVERRUNS} times"
            raise TooSlow(message, hint=HINT)
        del self._overruns[lane]

    def _note_overrun(self, lane: str) -> None:
        now = self._monotonic()
        recent = [at for at in self._overruns.pop(lane, ()) if now - at < REST_S]
        self._overruns[lane] = [*recent, now]
        if len(self._overruns) > MAX_LANES:
            del self._overruns[next(iter(self._overruns))]


HINT: Final = "leave out repetition inside of repetition, such as (a+)+; `tpxd check` names it"


class _Parser(jsonpath.Parser):
    """Has regular expressions bounded, and wants them written in the path.

    Attributes:
        expressions: by text and flags.
    """

    RE_FLAG_MAP = {"a": regex.ASCII, "i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}  # noqa: RUF012

    def __init__(self, budget: Budget, forgiving: bool) -> None:
        environment = jsonpath.JSONPathEnvironment()
        super().__init__(env=environment)
        environment.parser = self
        environment.function_extensions["match"] = _Function(self, BoundedRegex.fullmatch)
        environment.function_extensions["search"] = _Function(self, BoundedRegex.search)
        self.expressions: dict[tuple[str, int], BoundedRegex] = {}
        self._budget = budget
        self._forgiving = forgiving

    def expression(self, pattern: str, flags: int = 0) -> BoundedRegex:
        """Compile an expression, once; raises ValueError."""
        if (pattern, flags) not in self.expressions:
            self.expressions[pattern, flags] = BoundedRegex(pattern, flags, self._budget, forgiving=self._forgiving)
        return self.expressions[pattern, flags]

    def asked(self, pattern: object) -> BoundedRegex | None:
        """What a function is asked with: an expression of the path, or one that an uplink brings, if it is short."""
        if not isinstance(pattern, str):
            return None
        if (pattern, 0) in self.expressions:
            return self.expressions[pattern, 0]
        try:
            return BoundedRegex(pattern, 0, self._budget) if len(pattern) <= BROUGHT_CHARACTERS else None
        except ValueError:
            return None

    def parse_regex(self, stream: TokenStream) -> BaseExpression:
        """A literal after `=~`, whose right side the library asks for `fullmatch`."""
        pattern, flags = stream.current().value, 0
        if stream.peek().kind == TOKEN_RE_FLAGS:
            stream.next()
            for flag in stream.next().value:
                flags |= self.RE_FLAG_MAP[flag]
        return RegexLiteral(value=self.expression(pattern, flags))  # type: ignore[arg-type] # it asks for `fullmatch` alone

    def parse_function_extension(self, stream: TokenStream) -> BaseExpression:
        """A call of a function."""
        call = super().parse_function_extension(stream)
        if isinstance(call, FunctionExtension) and call.name in ("match", "search"):
            if isinstance(call.args[1], StringLiteral):
                self.expression(call.args[1].value)
            elif not self._forgiving:
                # one that an uplink brings could hold everything up while it is compiled
                raise ValueError(f"the second argument of {call.name}() must be a text in quotes")
        return call


class _Function(FilterFunction):
    """match() or search(), of RFC 9535."""

    arg_types = [ExpressionType.VALUE, ExpressionType.VALUE]  # noqa: RUF012
    return_type = ExpressionType.LOGICAL

    def __init__(self, parser: _Parser, ask: Callable[[BoundedRegex, str], bool]) -> None:
        self._parser = parser
        self._ask = ask

    def __call__(self, value: object, pattern: object) -> bool:
        expression = self._parser.asked(pattern)
        return isinstance(value, str) and expression is not None and self._ask(expression, value)
