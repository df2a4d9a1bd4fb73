"""What `tpxd decode` and `tpxd encode` share: a driver found by name or path, and one call of it in a worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.drivers import Driver, read_driver, read_drivers
from tpxd.codecs.engine import Call, Limits, Operation, Outcome
from tpxd.codecs.workers import limits_of, open_workers
from tpxd.config.settings import load_settings
from tpxd.errors import TpxdError


class ScriptFailed(TpxdError):
    """The script gave no result."""


def driver_named(wanted: str, config: Path) -> Driver:
    """A driver by its path here, or by its name in the `drivers_dir` of the daemon's settings.

    Raises:
        ConfigError: the file is no driver.
        ScriptFailed: there is none of that name.
    """
    if Path(wanted).exists():
        return read_driver(Path(wanted))
    directory = drivers_directory(config)
    found = read_drivers(directory)
    for problem in found.problems:
        print(f"warning: {problem}", file=sys.stderr)
    driver = Catalogue(found.drivers.values()).named(wanted)
    if driver is None:
        count = len(found.drivers)
        raise ScriptFailed(f"no driver {wanted}", hint=f"neither a file here nor one of {count} in {directory}")
    return driver


def drivers_directory(config: Path) -> Path:
    """Where the daemon of this configuration directory looks for drivers."""
    return load_settings(config).drivers_dir


def run_driver(driver: Driver, operation: Operation, given: Mapping[str, Any], config: Path) -> Outcome:
    """Run one call as the daemon of this configuration directory does, and print the script's console.

    Raises:
        ScriptFailed: the driver has no such operation, or it failed; says the place in the script where that is known.
    """
    source = driver.source(operation)
    if source is None:
        raise ScriptFailed(f"{driver.path}: the driver has no {operation}")
    limits = limits_of(load_settings(config).codecs)
    context: list[Any] | None = [] if driver.uses_context else None
    outcome = trio.run(partial(_once, driver.id, Call(source, driver.signature, operation, given, context), limits))
    for line in outcome.logs:
        print(f"console: {line}", file=sys.stderr)
    if outcome.failure is not None:
        where = outcome.failure.place
        place = f"{driver.path}:{where[0]}:{where[1]}" if where else str(driver.path)
        raise ScriptFailed(f"{place}: {outcome.failure.text}")
    return outcome


async def _once(name: str, call: Call, limits: Limits) -> Outcome:
    async with open_workers(1, limits) as workers:
        [outcome] = await workers.run([(name, "", call)])
    return outcome
