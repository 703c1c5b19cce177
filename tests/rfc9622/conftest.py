"""What the conformance tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from greentaps.taps.properties import Property, register_property, unregister_property
from taps.conftest import ends_in_time, loop_is_complete, stack  # noqa: F401 - fixtures


@pytest.fixture
def register() -> Iterator[Callable[..., Property]]:
    """`register_property`, taken back at the end of the test."""
    names: list[str] = []

    def registering(name: str, *args: Any, **options: Any) -> Property:
        row = register_property(name, *args, **options)
        names.append(name)
        return row

    yield registering
    for name in names:
        unregister_property(name)
