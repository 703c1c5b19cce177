"""What the tests of transports share: the loop opens its spare descriptor before they count."""

from __future__ import annotations

import pytest
import pyuv
from greentaps.hub import get_runner


@pytest.fixture(scope="session", autouse=True)
def loop_is_complete() -> None:
    """libuv opens a spare descriptor with the first stream of a loop, and keeps it."""
    runner = get_runner()
    runner.discard(pyuv.TCP(runner.loop))
