"""Ready-made sets of properties (RFC 9622 appendix B.2): a table, and the enumeration of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .values import AVOID, NO_PREFERENCE, REQUIRE, Words

__all__ = ["PROFILES", "TransportPropertyProfiles"]


class TransportPropertyProfiles(Words):
    """The profiles of RFC 9622 appendix B.2, for ``TransportProperties(profile)``.

    A word in any spelling, or an older system's number, will do for a member.
    """

    RELIABLE_INORDER_STREAM = "reliable-inorder-stream"
    """What TCP offers."""
    RELIABLE_MESSAGE = "reliable-message"
    """What SCTP offers."""
    UNRELIABLE_DATAGRAM = "unreliable-datagram"
    """What UDP offers.  For low delay, set a capacity profile too; whoever can bear damaged data
    may relax fullChecksumSend and fullChecksumRecv."""
    UNREALIABLE_DATAGRAM = "unreliable-datagram"  # a misspelling that is about

    @classmethod
    def also(cls) -> Mapping[Any, TransportPropertyProfiles]:
        return {
            1: cls.RELIABLE_INORDER_STREAM,
            2: cls.RELIABLE_MESSAGE,
            3: cls.UNRELIABLE_DATAGRAM,
            "unrealiabledatagram": cls.UNRELIABLE_DATAGRAM,
        }


PROFILES: Mapping[TransportPropertyProfiles, Mapping[str, Any]] = {
    TransportPropertyProfiles.RELIABLE_INORDER_STREAM: {
        "reliability": REQUIRE,
        "preserveOrder": REQUIRE,
        "congestionControl": REQUIRE,
        "preserveMsgBoundaries": NO_PREFERENCE,
    },
    TransportPropertyProfiles.RELIABLE_MESSAGE: {
        "reliability": REQUIRE,
        "preserveOrder": REQUIRE,
        "congestionControl": REQUIRE,
        "preserveMsgBoundaries": REQUIRE,
    },
    TransportPropertyProfiles.UNRELIABLE_DATAGRAM: {
        "reliability": AVOID,
        "preserveOrder": AVOID,
        "congestionControl": NO_PREFERENCE,
        "preserveMsgBoundaries": REQUIRE,
        "safelyReplayable": True,
    },
}
