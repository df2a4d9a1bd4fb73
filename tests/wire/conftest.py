"""What several files of these tests ask for."""

from __future__ import annotations

import pytest

from tests.wire.http_far_end import Far


@pytest.fixture
def far() -> Far:
    """The far end of an HTTP client, which nobody has dialled yet."""
    return Far()
