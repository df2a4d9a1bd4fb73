from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tpxd.wire.open_files import Shares, raise_limit, share_out


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_becomes_the_hard_one(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    assert raise_limit() == limits[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


def test_where_it_may_not_be_raised_it_stays(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError

    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", forbid)
        assert raise_limit() == 512


@pytest.mark.parametrize(
    ("files", "shares"),
    [(1 << 30, Shares(1024, 100, 32)), (1024, Shares(256, 64, 32)), (256, Shares(64, 16, 8)), (32, Shares(8, 2, 1))],
)
def test_more_than_half_of_the_files_stay_for_the_rest(files: int, shares: Shares) -> None:
    assert share_out(files) == shares
    assert shares.intake + shares.control + shares.control_socket < files / 2
