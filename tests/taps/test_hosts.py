"""The hosts file: what it says, and that it is read again."""

from __future__ import annotations

import os
from pathlib import Path

from greentaps.taps.naming.hosts import HostsFile, read_hosts
from hypothesis import given
from hypothesis import strategies as st

TEXT = """
127.0.0.1   localhost   # here
192.0.2.1   One.example one
192.0.2.2   one
192.0.2.2   one.
2001:db8::1 one two
fe80::1%eth0 three
nonsense    four
192.0.2.9
"""


def test_what_it_says() -> None:
    assert read_hosts(TEXT) == {
        "localhost": ("127.0.0.1",),
        "one.example": ("192.0.2.1",),
        "one": ("192.0.2.1", "192.0.2.2", "2001:db8::1"),
        "two": ("2001:db8::1",),
        "three": ("fe80::1%eth0",),
    }


@given(st.text())
def test_any_text(text: str) -> None:
    assert all(names and addresses for names, addresses in read_hosts(text).items())


def test_it_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(str(path))
    assert hosts.find("one") is None
    path.write_text(TEXT)
    assert hosts.addresses("ONE.", v6=False) == ("192.0.2.1", "192.0.2.2")
    assert hosts.addresses("two", v6=False) == ()
    assert hosts.addresses("two", v6=True) == ("2001:db8::1",)
    assert hosts.addresses("three", v6=True) == ("fe80::1%eth0",)
    assert hosts.addresses("five", v6=True) is None
    path.write_text("192.0.2.5 five\n")
    os.utime(path, (1, 1))
    assert hosts.addresses("five", v6=False) == ("192.0.2.5",)
    path.unlink()
    assert hosts.find("five") is None
