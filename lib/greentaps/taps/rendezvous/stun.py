"""STUN and TURN as seen by a client (RFC 8489, RFC 8656): messages, transactions, allocations.

Pure: every object here is told ``now`` and the bytes that have come, and answers with bytes to
send and with the time at which it wants to be woken.  The coding of messages is aioice's, imported
when it is first needed: what has no use for it does without.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from ...errors import EstablishmentError, Reason

__all__ = [
    "KEEPALIVE",
    "REQUESTS",
    "RTO",
    "WRAPPING",
    "Client",
    "Relay",
    "Transaction",
    "codec",
    "has_codec",
    "looks_like_stun",
]

Address = tuple[str, int]

# RFC 8489 section 6.2.1.
RTO = 0.5  # seconds before the first repetition; doubled with each
REQUESTS = 7  # how often a request is sent (Rc)
LAST_WAIT = 16  # times the RTO, after the last of them (Rm)
TI = 39.5  # seconds: what all of that amounts to, and how long an answer over TCP may take
KEEPALIVE = 15.0  # seconds: Tr of RFC 8445 section 11

# RFC 8656: permissions live for 5 minutes and channels for 10; both are renewed with a minute left.
PERMISSION_RENEWED = 240.0  # seconds
CHANNEL_RENEWED = 540.0  # seconds
LIFETIME = 600  # seconds: what an allocation is asked to live for
FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x4FFF
MAX_PEERS = 100  # whom one allocation is opened for: as many as there may be pairs
MAX_HELD = 4  # datagrams that wait for the permission of one peer
MAX_ATTRIBUTES = 64  # of one message
MAX_ANSWERS = 3  # times that a server may ask to begin again (401, 438)

# A Send indication, with an IPv6 peer, padding and a fingerprint.
WRAPPING = 20 + 24 + 4 + 3 + 8  # bytes

_UNAUTHENTICATED, _STALE_NONCE = 401, 438
_COOKIE = b"\x21\x12\xa4\x42"
_UDP = 17 << 24


def codec() -> Any:
    """aioice's ``stun`` module.  Raises EstablishmentError where it is not installed."""
    try:
        from aioice import stun
    except ImportError as error:
        raise EstablishmentError(
            "rendezvous over UDP, STUN and TURN need aioice: pip install 'greentaps[ice]'",
            Reason.INVALID_CONFIGURATION,
        ) from error
    return stun


def has_codec() -> bool:
    """Whether `codec` would answer."""
    try:
        codec()
    except EstablishmentError:
        return False
    return True


def looks_like_stun(data: bytes) -> bool:
    """Whether *data* is a STUN message and nothing else (RFC 8489 section 6)."""
    return (
        len(data) >= 20
        and data[0] < 4
        and data[4:8] == _COOKIE
        and len(data) == 20 + int.from_bytes(data[2:4], "big")
        and len(data) % 4 == 0
    )


def _is_reasonable(data: bytes) -> bool:
    """Whether a message has no more than `MAX_ATTRIBUTES`.  Thousands, with a checksum of all that
    goes before each, would keep everybody else waiting."""
    at = 20
    for _ in range(MAX_ATTRIBUTES):
        if at >= len(data):
            return True
        at += 4 + (int.from_bytes(data[at + 2 : at + 4], "big") + 3) // 4 * 4
    return at >= len(data)


def parse(data: bytes) -> Any:
    """The message in *data*, or None if there is none in it."""
    if not (looks_like_stun(data) and _is_reasonable(data)):
        return None
    try:
        return codec().parse_message(data)
    except (ValueError, LookupError, UnicodeDecodeError, ArithmeticError):
        return None
    except Exception as error:  # struct.error is no subclass of the above
        if type(error).__name__ != "error":
            raise
        return None


def encode(
    method: str, kind: str, transaction: bytes, attributes: dict[str, Any], key: bytes | None = None
) -> bytes:
    """A message; with *key* it has MESSAGE-INTEGRITY, and it always has a FINGERPRINT."""
    stun = codec()
    message = stun.Message(stun.Method[method], stun.Class[kind], transaction, dict(attributes))
    if key is not None:
        message.add_message_integrity(key)
    else:
        message.add_fingerprint()
    return bytes(message)


class Transaction:
    """One request, which is repeated until it is answered (RFC 8489 section 6.2.1); over what is
    *reliable* it is sent once, and waited for as long (section 6.2.2)."""

    __slots__ = ("_rto", "_sent", "_wait", "data", "due")

    def __init__(
        self, data: bytes, now: float, rto: float = RTO, *, reliable: bool = False
    ) -> None:
        self.data = data
        self._rto = max(rto, RTO)
        self._wait = self._rto
        self._sent = 0
        if reliable:
            self._sent = REQUESTS - 1
            self._rto = TI / LAST_WAIT
        self.due = now
        """When something is to happen next: `step` says what."""

    def step(self, now: float) -> bytes | None:
        """It is due: what is to be sent now; None if nobody has answered in time."""
        if self._sent == REQUESTS:
            self.due = inf
            return None
        self._sent += 1
        last = self._sent == REQUESTS
        self.due = now + (LAST_WAIT * self._rto if last else self._wait)
        self._wait *= 2
        return self.data

    def cease(self, now: float) -> None:
        """Send it no more.  It is waited for as long as for an answer to a last request."""
        self._sent = REQUESTS
        self.due = now + LAST_WAIT * RTO


Done = Callable[[Any, float], None]


class Client:
    """Transactions with one server, from one socket.

    *credentials* are a user name and a password, for servers that ask for them (the long-term
    mechanism of RFC 8489 section 9.2); *token* makes transaction ids; *reliable* says that it is
    TCP.  What is to be sent to the server is in `outgoing`.
    """

    def __init__(
        self,
        server: Address,
        credentials: tuple[str, str] | None,
        token: Callable[[], bytes],
        *,
        reliable: bool = False,
    ) -> None:
        self.server = server
        self._reliable = reliable
        self.outgoing: list[bytes] = []
        self._credentials = credentials
        self._token = token
        self._realm: str | None = None
        self._nonce: bytes | None = None
        self._key: bytes | None = None
        self._open: dict[bytes, _Request] = {}

    @property
    def wake_at(self) -> float:
        """When `wake` is to be called; infinite if only answers count."""
        return min((request.transaction.due for request in self._open.values()), default=inf)

    def request(self, method: str, attributes: dict[str, Any], done: Done, now: float) -> None:
        """Ask the server.  *done* is called with the answer, which may be an error message, or
        with None if there was none, and with the time."""
        self._send(_Request(method, attributes, done), now)

    def _send(self, request: _Request, now: float) -> None:
        token = self._token()
        attributes = dict(request.attributes)
        request.key = self._key
        if self._key is not None and self._credentials is not None:
            attributes |= {
                "USERNAME": self._credentials[0],
                "REALM": self._realm,
                "NONCE": self._nonce,
            }
        request.transaction = Transaction(
            encode(request.method, "REQUEST", token, attributes, self._key),
            now,
            reliable=self._reliable,
        )
        self._open[token] = request
        self.wake(now)

    def wake(self, now: float) -> None:
        """The time is *now*."""
        for token, request in list(self._open.items()):
            if request.transaction.due <= now:
                data = request.transaction.step(now)
                if data is not None:
                    self.outgoing.append(data)
                else:
                    del self._open[token]
                    request.done(None, now)

    def lost(self, now: float) -> None:
        """There is no way to the server any more: nothing will be answered."""
        unanswered, self._open = self._open, {}
        for request in unanswered.values():
            request.done(None, now)

    def received(self, message: Any, now: float) -> None:
        """A response has come from the server's address.  One that belongs to no request of ours,
        or is not signed where it must be, changes nothing."""
        stun = codec()
        request = self._open.get(message.transaction_id)
        if request is None or request.method != message.message_method.name:
            return
        if message.message_class == stun.Class.ERROR:
            if message.error_code in (_UNAUTHENTICATED, _STALE_NONCE):
                self._begin_again(message, request, now)
                return
        elif message.message_class != stun.Class.RESPONSE:
            return
        if request.key is not None and not message.check_message_integrity(request.key):
            return
        del self._open[message.transaction_id]
        request.done(message, now)

    def _begin_again(self, message: Any, request: _Request, now: float) -> None:
        """The server wants to know who asks, or its nonce is old.  Such an answer is not signed, so
        it counts only a few times."""
        realm, nonce = message.attributes.get("REALM"), message.attributes.get("NONCE")
        del self._open[message.transaction_id]
        request.again += 1
        refused = message.error_code == _UNAUTHENTICATED and request.key is not None
        if (
            self._credentials is None
            or realm is None
            or nonce is None
            or refused
            or request.again > MAX_ANSWERS
        ):
            request.done(message, now)
            return
        self._realm, self._nonce = realm, nonce
        name, password = self._credentials
        secret = f"{name}:{realm}:{password}".encode()
        self._key = hashlib.md5(secret, usedforsecurity=False).digest()
        self._send(request, now)

    def indication(self, method: str, attributes: dict[str, Any]) -> bytes:
        """A message that nobody answers."""
        return encode(method, "INDICATION", self._token(), attributes)


class _Request:
    __slots__ = ("again", "attributes", "done", "key", "method", "transaction")

    transaction: Transaction

    def __init__(self, method: str, attributes: dict[str, Any], done: Done) -> None:
        self.method = method
        self.attributes = attributes
        self.done = done
        self.key: bytes | None = None
        self.again = 0


class _Peer:
    """What an allocation knows of one peer's host."""

    __slots__ = ("asked", "failure", "held", "permitted", "renew_at")

    def __init__(self) -> None:
        self.asked = False
        self.failure: str | None = None  # why there is no permission
        self.permitted = False
        self.renew_at = inf
        self.held: deque[tuple[Address, bytes]] = deque(maxlen=MAX_HELD)


class Relay:
    """One allocation on a TURN server over UDP (RFC 8656), kept alive until `release`.

    `address` is the relayed address when there is one, `mapped` ours as the server sees it,
    `failure` why there is none.  What is to be sent to the server is in `outgoing`, once `flush`
    was called.
    """

    def __init__(self, client: Client, now: float) -> None:
        self.client = client
        self.address: Address | None = None
        self.mapped: Address | None = None
        self.failure: str | None = None
        self._peers: dict[str, _Peer] = {}
        self._channels: dict[Address, int] = {}
        self._channel_peers: dict[int, Address] = {}
        self._channels_due: dict[Address, float] = {}
        self._refresh_at = inf
        self._released = False
        client.request(
            "ALLOCATE",
            {"REQUESTED-TRANSPORT": _UDP, "LIFETIME": LIFETIME},
            self._allocated,
            now,
        )

    @property
    def pending(self) -> bool:
        """Whether it is not known yet if there will be an address."""
        return self.address is None and self.failure is None

    @property
    def wake_at(self) -> float:
        renewals = [peer.renew_at for peer in self._peers.values()]
        return min([self.client.wake_at, self._refresh_at, *renewals, *self._channels_due.values()])

    def _allocated(self, answer: Any, now: float) -> None:
        relayed = None if answer is None else answer.attributes.get("XOR-RELAYED-ADDRESS")
        if relayed is None:
            self.failure = _why(answer)
            return
        if self._released:
            self._deallocate(now)
            return
        self.address = relayed
        self.mapped = answer.attributes.get("XOR-MAPPED-ADDRESS")
        self._refreshed(answer, now)

    def _refreshed(self, answer: Any, now: float) -> None:
        lifetime = None if answer is None else answer.attributes.get("LIFETIME")
        if lifetime is None or not lifetime:
            if not self._released:
                self.failure = _why(answer)
                self.address = None
            self._refresh_at = inf
            return
        # A minute before its end, or halfway where a minute is too much; never at once.
        self._refresh_at = now + max(lifetime - 60, lifetime / 2, 1.0)

    def wake(self, now: float) -> None:
        """The time is *now*."""
        if self._refresh_at <= now:
            self._refresh_at = inf
            self.client.request("REFRESH", {"LIFETIME": LIFETIME}, self._refreshed, now)
        for host, peer in self._peers.items():
            if peer.renew_at <= now:
                self._ask_permission(host, peer, now)
        for remote, due in list(self._channels_due.items()):
            if due <= now:
                self._bind(remote, self._channels[remote], now)
        self.client.wake(now)

    def _ask_permission(self, host: str, peer: _Peer, now: float) -> None:
        peer.asked = True
        peer.renew_at = inf

        def done(answer: Any, now: float) -> None:
            peer.permitted = _succeeded(answer)
            peer.failure = None if peer.permitted else _why(answer)
            peer.asked = False
            peer.renew_at = now + PERMISSION_RENEWED if peer.permitted else inf
            while peer.held:
                remote, data = peer.held.popleft()
                if peer.permitted:
                    self.client.outgoing.append(self._wrapped(remote, data))

        self.client.request("CREATE_PERMISSION", {"XOR-PEER-ADDRESS": (host, 0)}, done, now)

    def send(self, remote: Address, data: bytes, now: float) -> None:
        """Send *data* to a peer through the server, when it has permission to."""
        peer = self._peers.get(remote[0])
        if peer is None:
            if len(self._peers) >= MAX_PEERS:
                return
            peer = self._peers[remote[0]] = _Peer()
        if peer.permitted:
            self.client.outgoing.append(self._wrapped(remote, data))
            return
        peer.held.append((remote, data))
        if not peer.asked:
            self._ask_permission(remote[0], peer, now)

    def failure_with(self, remote: Address) -> str | None:
        """Why nothing goes to a peer through the server, or no longer; None if it may."""
        peer = self._peers.get(remote[0])
        return self.failure or (None if peer is None else peer.failure)

    def wrapped(self, remote: Address, data: bytes) -> bytes:
        """*data* as it travels to the server, for a peer that `send` was used for before."""
        return self._wrapped(remote, data)

    def _wrapped(self, remote: Address, data: bytes) -> bytes:
        channel = self._channels.get(remote)
        if channel is not None and self._channel_peers.get(channel) == remote:
            return channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        return self.client.indication("SEND", {"XOR-PEER-ADDRESS": remote, "DATA": data})

    def bind(self, remote: Address, now: float) -> None:
        """Give *remote* a channel, which costs four bytes for each datagram instead of 36."""
        if remote in self._channels:
            return
        channel = FIRST_CHANNEL + len(self._channels)
        if channel <= LAST_CHANNEL:
            self._channels[remote] = channel
            self._bind(remote, channel, now)

    def _bind(self, remote: Address, channel: int, now: float) -> None:
        self._channels_due[remote] = inf

        def done(answer: Any, now: float) -> None:
            if _succeeded(answer):
                self._channel_peers[channel] = remote
                self._channels_due[remote] = now + CHANNEL_RENEWED
            else:  # indications work as well
                self._channel_peers.pop(channel, None)
                self._channels_due.pop(remote, None)

        attributes = {"CHANNEL-NUMBER": channel, "XOR-PEER-ADDRESS": remote}
        self.client.request("CHANNEL_BIND", attributes, done, now)

    def received(self, data: bytes, now: float) -> tuple[Address, bytes] | None:
        """A datagram from the server's address: who has sent what through it, or None."""
        if data[:1] and 0x40 <= data[0] <= 0x4F:
            remote = self._channel_peers.get(int.from_bytes(data[:2], "big"))
            size = int.from_bytes(data[2:4], "big")
            if remote is None or len(data) < 4 + size:
                return None
            return remote, data[4 : 4 + size]
        message = parse(data)
        if message is None:
            return None
        if message.message_class != codec().Class.INDICATION:
            self.client.received(message, now)
            return None
        remote, inner = message.attributes.get("XOR-PEER-ADDRESS"), message.attributes.get("DATA")
        if remote is None or inner is None or message.message_method.name != "DATA":
            return None
        peer = self._peers.get(remote[0])
        return (remote, inner) if peer is not None and peer.permitted else None

    def release(self, now: float) -> None:
        """Give the allocation back: one request, whose answer nobody waits for."""
        if not self._released:
            self._released = True
            if self.address is not None:
                self._deallocate(now)

    def _deallocate(self, now: float) -> None:
        self.client.request("REFRESH", {"LIFETIME": 0}, self._refreshed, now)


def _succeeded(answer: Any) -> bool:
    return answer is not None and answer.message_class == codec().Class.RESPONSE


def _why(answer: Any) -> str:
    """What an answer that is no success says."""
    if answer is None:
        return "the server does not answer"
    code, text = answer.attributes.get("ERROR-CODE") or (None, "an answer without an address")
    return text if code is None else f"the server says {code} {text}"


def reflexive_address(answer: Any) -> Address | None:
    """The address that a server has seen, from its answer to a Binding request."""
    return answer.attributes.get("XOR-MAPPED-ADDRESS") if _succeeded(answer) else None
