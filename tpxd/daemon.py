"""The process: builds the parts, nests them, and takes them down in the order that loses nothing.

spool                       outermost: closes last
  downlinks                  saves what became of each downlink
  control                   answers until the end
    supervisor, sender      connections finish their batch, then downlinks under way get their answer
      intake                innermost: its listeners close first, so the LRC sees a refused connection
                            and never a 200 for something that was not kept
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import secrets
import signal
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tpxd import connectors, sdnotify
from tpxd.broker.keeper import run_broker
from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.decoding import Decoding
from tpxd.codecs.workers import limits_of, open_workers
from tpxd.config.secret import SecretSources
from tpxd.config.settings import FILE_NAME, Settings, settings_to_run
from tpxd.control.daemon_state import DaemonState, Pulse
from tpxd.control.server import serve_control
from tpxd.downlinks.lrc_sender import NOT_SET, LrcSender
from tpxd.downlinks.queue import open_downlinks
from tpxd.downlinks.urls import PATH, DownlinkUrls
from tpxd.errors import EXIT_INVALID, ConfigError, SpoolError, SpoolUnavailable, TpxdError, leaves
from tpxd.events import EventLog
from tpxd.intake.downlinks import downlink_route
from tpxd.intake.server import Intake, serve_intake
from tpxd.log import configure as configure_log
from tpxd.lorawan.downlink_request import Signing
from tpxd.reload.drivers import DriverDir
from tpxd.reload.supervisor import Supervisor
from tpxd.reload.versions import ConfigDir
from tpxd.reload.watcher import watch
from tpxd.spool import Spool, SpoolLimits, open_spool
from tpxd.wire.http import CannotListen
from tpxd.wire.open_files import Shares, raise_limit, share_out
from tpxd.wire.streams import open_stream
from tpxd.wire.tls import TlsContextCache

logger = logging.getLogger(__name__)

STARTING = (SpoolError, CannotListen, OSError)
"""What may keep a part from starting; the message says what to do."""

EXIT_FAILED: Final = 1

SPOOL: Final = "spool.db"

GC_OBJECTS: Final = 10_000
"""The garbage collector runs at so many new objects. An uplink holds a dozen until it is settled: at Python's 700 the
collector would walk over what waits every few milliseconds, and find nothing."""


def run(config_dir: Path) -> int:
    """Run the daemon of one configuration directory until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 stopped as asked, 1 a part could not start or broke, 78 `tpxd.toml` is wrong.
    """
    try:
        path = config_dir / FILE_NAME
        settings, remarks = settings_to_run(path, SecretSources(config_dir))
    except ConfigError as error:
        for problem in error.problems:
            logging.getLogger("tpxd").error("%s", problem)
        return EXIT_INVALID
    configure_log(settings.log.level, settings.log.format)
    for problem in remarks:
        logger.warning("%s", problem)
    shares = share_out(raise_limit())
    connectors.load()
    gc.freeze()  # what is there now stays until the end
    gc.set_threshold(GC_OBJECTS)
    try:
        own_state_dir(settings.state_dir)
        trio.run(_main, settings, shares)
    except BaseExceptionGroup as group:
        expected, rest = group.split(STARTING)
        if expected is None or rest is not None:
            raise
        for leaf in leaves(expected):
            logger.critical("%s", _with_hint(leaf))
        return EXIT_FAILED
    except STARTING as error:
        logger.critical("%s", _with_hint(error))
        return EXIT_FAILED
    return 0


def own_state_dir(path: Path) -> None:
    """Make the directory of the queue, for this user alone; one that is there is closed to others.

    Raises:
        SpoolUnavailable: it cannot be made or used; the hint says how to name another.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        # one that holds anything else, such as /tmp, is left as it is
        ours = (path / SPOOL).exists() or not any(path.iterdir())
        if ours and found.st_mode & 0o077 and found.st_uid == os.geteuid():
            path.chmod(0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        hint = 'set it in tpxd.toml to a directory of yours, such as state_dir = "state"; --config DIR says where'
        raise SpoolUnavailable(f"state_dir {path}: {error.strerror}", hint=hint) from error


def _with_hint(error: BaseException) -> str:
    return f"{error}; {error.hint}" if isinstance(error, TpxdError) and error.hint else str(error)


async def _main(settings: Settings, shares: Shares) -> None:
    """Nest the parts; returns when everything has stopped."""
    events = EventLog()
    limits = SpoolLimits(
        max_bytes=settings.spool.max_size,
        min_free_bytes=settings.spool.min_free,
        retention_s=settings.spool.retention,
        refuse_when_full=settings.spool.when_full == "refuse",
        duplicate_window_s=settings.intake.duplicate_window,
    )
    refusal = None if settings.lrc.downlink_url else NOT_SET
    async with (
        open_spool(settings.state_dir / SPOOL, limits, tell=events.tell) as spool,
        open_downlinks(spool.downlinks, spool.append, events.tell, refusal=refusal) as downlinks,
        open_workers(settings.codecs.workers, limits_of(settings.codecs)) as workers,
    ):
        config_dir = ConfigDir(settings.connections_dir, settings.state_dir / "last-good")
        # where no downlink can go to an LRC, uplinks invite none
        urls = DownlinkUrls(spool, settings.intake.public_url if refusal is None else None, events.tell)
        catalogue = Catalogue()
        drivers = DriverDir(settings.drivers_dir, catalogue, workers)
        supervisor = Supervisor(
            config_dir,
            spool,
            events.tell,
            instance=settings.instance or await _instance(spool),
            dial=open_stream,
            tls=TlsContextCache(),
            stop_grace_s=settings.engine.stop_grace,
            downlinks=downlinks,
            urls=urls,
            drivers=drivers,
            decoding=Decoding(catalogue, workers, events.tell),
        )
        sender = LrcSender(
            settings.lrc,
            downlinks,
            events.tell,
            signing=partial(_signing, supervisor),
            now=supervisor.clock.now,
            grace_s=settings.engine.stop_grace,
        )
        intake = Intake(
            settings.intake,
            settings.lrc,
            spool,
            claimed=supervisor.claims.claimed,
            heard=lambda r: downlinks.heard(r.kind, r.lane, r.fields),
        )
        intake.routes[PATH] = {"POST": downlink_route(urls.find, downlinks, supervisor.chains.messages, time.time)}
        pulse = Pulse(spool, supervisor)
        state = DaemonState(supervisor, intake, spool, events, pulse, downlinks, sender)
        async with trio.open_nursery() as outer:
            outer.start_soon(pulse.beat)
            await outer.start(partial(serve_control, shares=shares), settings.control, state)
            async with trio.open_nursery() as middle:
                if settings.broker.enabled:
                    await middle.start(run_broker, settings.broker.listen, events.tell)
                await middle.start(supervisor.run)
                middle.start_soon(sender.run)
                middle.start_soon(watch, lambda: config_dir.watched() | drivers.watched(), supervisor.reload)
                async with trio.open_nursery() as inner:
                    await inner.start(partial(serve_intake, connections=shares.intake), intake)
                    pulse.ready = True
                    sdnotify.ready()
                    logger.info("ready: intake on %s, control on %s", settings.intake.listen, settings.control.listen)
                    await _obey_signals(supervisor, sender)
                    pulse.ready = False
                    sdnotify.stopping()
                    inner.cancel_scope.cancel()
                await supervisor.stop()
                await sender.stop()
                middle.cancel_scope.cancel()
            outer.cancel_scope.cancel()
    logger.info("stopped")


def _signing(supervisor: Supervisor, connection: str) -> Signing:
    file = supervisor.file(connection)
    return Signing() if file is None else file.configuration.signing


async def _instance(spool: Spool) -> str:
    """Eight hex digits made at the first start and kept with the spool."""
    known = spool.recall("instance")
    if known is None:
        known = secrets.token_hex(4)
        await spool.remember("instance", known)
    return known


async def _obey_signals(supervisor: Supervisor, sender: LrcSender) -> None:
    """Reload at SIGHUP; return at SIGTERM or SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number != signal.SIGHUP:
                logger.info("stopping at %s", signal.Signals(number).name)
                return
            sdnotify.reloading()
            supervisor.reconnect()
            sender.reconnect()
            await supervisor.reload_and_wait()
            sdnotify.ready()
            logger.info("reloaded at SIGHUP")
