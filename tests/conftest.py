"""Peers that take long to start and are shared by the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rabbitmq import Rabbit, running_rabbit


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """The RabbitMQ of this run; a test that kills it starts it again."""
    with running_rabbit() as broker:
        yield broker
