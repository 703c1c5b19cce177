"""What the tests of this folder share: no test waits for ever, and descriptors are made early."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
import pyuv
from greentaps.hub import get_runner

LONGEST = 40.0  # seconds that a test may take on a busy machine


@pytest.fixture(scope="session", autouse=True)
def loop_is_complete() -> None:
    """libuv opens a spare descriptor with the first stream of a loop, and keeps it."""
    runner = get_runner()
    runner.discard(pyuv.TCP(runner.loop))


@pytest.fixture(autouse=True)
def ends_in_time() -> Iterator[None]:
    """Break off a test that hangs, where it hangs."""
    with gevent.Timeout(LONGEST):
        yield


@pytest.fixture(params=["tcp", "tls"])
def stack(request: pytest.FixtureRequest) -> str:
    """The test runs over both stacks."""
    return str(request.param)
