"""Messages and their contexts: small, and the same for all pieces."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps import LengthPrefixFramer, LocalEndpoint, Message, MessageContext, RemoteEndpoint

ENDS = (LocalEndpoint().with_port(1), RemoteEndpoint().with_port(2))


class Connection:
    """Stands for the Connection that a Message came from."""

    def ends(self) -> tuple[LocalEndpoint, RemoteEndpoint]:
        return ENDS


@pytest.mark.rfc("MC-02", "P-45")
def test_properties_there_and_back() -> None:
    context = MessageContext()
    assert context.get("final", default="unset") == "unset"
    assert context.add("final", True) is context
    assert context.get("final") is True
    assert context.add("final", False).get("final") is False


@pytest.mark.parametrize("wrong", [1, "yes", None, 0.0])
def test_wrong_values(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        MessageContext().add("final", wrong)


@pytest.mark.parametrize("name", ["", "finale", "no.such.thing"])
def test_unknown_properties(name: str) -> None:
    with pytest.raises(KeyError):
        MessageContext().add(name, True)


@pytest.mark.rfc("MC-03", "F-07")
def test_framers_have_a_namespace_each() -> None:
    one, two = LengthPrefixFramer(), LengthPrefixFramer()
    context = MessageContext().add(one, "type", 1).add(two, "type", 2).add(one, "final", "mine")
    assert context.get(one, "type") == 1
    assert context.get(two, "type") == 2
    assert context.get(two, "final", default=7) == 7
    assert context.get("final") is None


@pytest.mark.rfc("MC-04")
def test_ends_are_those_of_the_connection() -> None:
    context = MessageContext()
    assert context.get_local_endpoint() is None
    assert context.get_remote_endpoint() is None
    context = Message(b"", True, context, Connection()).context
    assert (context.get_local_endpoint(), context.get_remote_endpoint()) == ENDS


def test_a_message_makes_its_context_when_asked() -> None:
    message = Message(b"data", True, None, Connection())
    assert message.context is message.context
    assert message.context.get_remote_endpoint() == ENDS[1]
    assert Message(b"", True, None).context.get_remote_endpoint() is None


def test_a_message_is_like_its_data() -> None:
    message = Message(b"data", False, None)
    assert bytes(message) == b"data"
    assert len(message) == 4
    assert repr(message) == "Message(b'data', end_of_message=False)"
    assert "<1000 bytes>" in repr(Message(bytes(1000), True, None))


def test_messages_are_small() -> None:
    """One is made for each receive."""
    for thing in (Message(b"", True, None), MessageContext()):
        with pytest.raises(AttributeError):
            thing.attribute = 1  # type: ignore[attr-defined]
