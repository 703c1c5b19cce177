"""The hosts file: names that the administrator has given addresses to (hosts(5))."""

from __future__ import annotations

import os
from ipaddress import IPv6Address, ip_address

__all__ = ["HostsFile", "read_hosts"]

MAX_BYTES = 4 * 1024 * 1024  # read of the file: some lists of advertisers are long


def read_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """The addresses of each name, which is in lower case, in the order of *text*.  Pure.

    Lines that cannot be understood are passed over.
    """
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        try:
            address = ip_address(words[0]) if words else None
        except ValueError:
            continue
        if address is None:
            continue
        for name in words[1:]:
            found.setdefault(name.lower().removesuffix("."), {})[str(address)] = None
    return {name: tuple(addresses) for name, addresses in found.items()}


class HostsFile:
    """The file at *path*, read again when it has changed.  One that is not there has no names."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: tuple[tuple[int, int] | None, dict[str, tuple[str, ...]]] = (None, {})

    def find(self, name: str) -> tuple[str, ...] | None:
        """The addresses of *name*, None if the file does not have it."""
        try:
            status = os.stat(self._path)
            version = (status.st_mtime_ns, status.st_size)
            if version != self._read[0]:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._read = (version, read_hosts(file.read(MAX_BYTES)))
        except OSError:
            self._read = (None, {})
        return self._read[1].get(name.lower().removesuffix("."))

    def addresses(self, name: str, *, v6: bool) -> tuple[str, ...] | None:
        """Those of one family; none if the file has only the other, None if it has not the name."""
        found = self.find(name)
        if found is None:
            return None
        return tuple(one for one in found if isinstance(ip_address(one), IPv6Address) is v6)
