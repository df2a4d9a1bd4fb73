"""`tpxd driver`: what drivers there are, and whether they give what their own examples say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import trio
import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.cli.render import screen, table_of
from tpxd.cli.scripting import drivers_directory
from tpxd.codecs.drivers import read_drivers
from tpxd.codecs.engine import Limits, Outcome
from tpxd.codecs.vectors import Example, Package, call_of, find_packages, given_by, same
from tpxd.codecs.workers import ScriptWorkers, open_workers
from tpxd.errors import Problem
from tpxd.log import visible

WORKERS = 4
SHOWN = 10


def driver(
    what: Annotated[str, typer.Argument(metavar="list|test", help="Which of the two.")],
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="test: where the packages are.")] = None,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """List the drivers of drivers_dir, or run the examples of every driver package below a directory.

    The exit code of `test` is 1 when an example failed or a package cannot be read.
    """
    if what == "list":
        _list(drivers_directory(config), json)
    elif what == "test" and directory is not None:
        raise typer.Exit(trio.run(_test, directory, json))
    else:
        raise typer.BadParameter("say `driver list`, or `driver test DIR`", param_hint="list|test")


def _list(directory: Path, as_json: bool) -> None:
    drivers = read_drivers(directory)
    found = sorted(drivers.drivers.values(), key=lambda each: each.id)
    if as_json:
        rows = [{"id": each.id, "signature": each.signature, "file": str(each.path)} for each in found]
        print(orjson.dumps({"drivers": rows, "problems": [str(problem) for problem in drivers.problems]}).decode())
        return
    table = table_of("ID", "SIGNATURE", "FILE")
    for each in found:
        table.add_row(Text(visible(each.id)), each.signature, Text(visible(str(each.path))))
    console = screen()
    if found:
        console.print(table)
    else:
        console.print(f"no driver in {directory}")
    for problem in drivers.problems:
        print(f"warning: {problem}", file=sys.stderr)


async def _test(directory: Path, as_json: bool) -> int:
    packages: list[dict[str, Any]] = []
    found = [*find_packages(directory)]
    with _progress(sum(len(each.examples) for each in found if isinstance(each, Package))) as (progress, task):
        async with open_workers(WORKERS, Limits()) as workers, trio.open_nursery() as nursery:
            waiting = iter(found)
            for _ in range(WORKERS):
                nursery.start_soon(_test_next, waiting, workers, packages, progress, task)
    packages.sort(key=lambda row: row["path"])
    passed, failed = (sum(row[which] for row in packages) for which in ("passed", "failed"))
    if as_json:
        print(orjson.dumps({"passed": passed, "failed": failed, "packages": packages}).decode())
    else:
        _show(packages, passed, failed)
    return 1 if failed or not packages else 0


async def _test_next(
    waiting: Iterator[Package | Problem],
    workers: ScriptWorkers,
    rows: list[dict[str, Any]],
    progress: Progress,
    task: TaskID,
) -> None:
    """Take the next package and run its examples, until none is left."""
    for each in waiting:
        if isinstance(each, Problem):
            failure = {"case": "the package itself", "expected": "a driver", "got": str(each)}
            rows.append({"path": each.path, "passed": 0, "failed": 1, "failures": [failure]})
            continue
        calls = [(example, call_of(each.driver, example)) for example in each.examples]
        outcomes = iter(
            await workers.run([(each.driver.id, str(n), call) for n, (_, call) in enumerate(calls) if call is not None])
        )
        failures: list[dict[str, Any]] = [
            failed
            for example, call in calls
            if (failed := _failure(each, example, None if call is None else next(outcomes))) is not None
        ]
        count = len(each.examples)
        rows.append(
            {"path": str(each.path), "passed": count - len(failures), "failed": len(failures), "failures": failures}
        )
        progress.advance(task, count)


def _failure(package: Package, example: Example, outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return {"case": example.case, "expected": example.expected, "got": f"no {example.operation} in the driver"}
    got = given_by(outcome, package.driver.signature)
    if same(example.expected, got):
        return None
    return {"case": example.case, "expected": example.expected, "got": got}


@contextmanager
def _progress(total: int) -> Iterator[tuple[Progress, TaskID]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress, progress.add_task("examples", total=total)


def _show(packages: list[dict[str, Any]], passed: int, failed: int) -> None:
    console = screen()
    table = table_of("PACKAGE", "PASSED", "FAILED")
    for row in packages:
        table.add_row(
            Text(visible(row["path"])),
            str(row["passed"]),
            Text(str(row["failed"]), style="red" if row["failed"] else ""),
        )
    console.print(table)
    for row in packages:
        for failure in row["failures"][:SHOWN]:
            console.print(Text(visible(f"{row['path']}: {failure['case']}"), style="bold"), soft_wrap=True)
            for side in ("expected", "got"):
                console.print(Text(visible(f"  {side:9}{orjson.dumps(failure[side]).decode()}")), soft_wrap=True)
    console.print(f"{passed} passed, {failed} failed")
