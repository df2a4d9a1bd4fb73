"""Peers that take long to start and are shared by the whole run; no law is broken by a machine that is busy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.peers.moto import Moto, running_moto
from tests.peers.rabbitmq import Rabbit, running_rabbit

settings.register_profile("tpxd", deadline=None)
settings.load_profile("tpxd")


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """The RabbitMQ of this run; a test that kills it starts it again."""
    with running_rabbit() as broker:
        yield broker


@pytest.fixture(scope="session")
def moto_of_this_run() -> Iterator[Moto]:
    """The moto server of this run."""
    with running_moto() as server:
        yield server


@pytest.fixture
def moto(moto_of_this_run: Moto) -> Moto:
    """A registry of AWS IoT without things."""
    moto_of_this_run.reset()
    return moto_of_this_run
