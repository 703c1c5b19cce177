"""Explanations: why each candidate is where it is, and what became of it."""

from __future__ import annotations

import pickle
from xml.etree import ElementTree as ET

import pytest
from greentaps import (
    EstablishmentError,
    Explanation,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from greentaps.plugins import find
from greentaps.taps.choosing.candidates import Branch, Candidate, Node
from greentaps.taps.choosing.racing import Race
from taps.helpers import HERE, blackhole, free_port, in_greenlet, local, plain_listener, remote


def raced() -> Explanation:
    """A race with one of each fate, in round numbers."""
    root = Node(None, "", Branch.ENDPOINTS)
    for number in range(5):
        cut = "is not wanted" if number == 3 else None
        candidate = Candidate((find("tcp"),), (f"192.0.2.{number}", 80))
        Node(root, f"192.0.2.{number}:80", cut=cut, why=("given first",), candidate=candidate)
    race = Race(root)
    first, second, third, _, _ = root.children
    race.start(100.0)
    race.failed(first, 100.1, OSError("<refused> & gone"))
    race.wake(100.35)
    race.succeeded(third, 100.4)
    assert second in {moment.node for moment in race.story}
    return Explanation(root, race.story, 100.0)


def test_what_became_of_each() -> None:
    story = raced()
    assert [
        (one.number, round(one.started, 6), round(one.ended or 0, 6), one.fate)
        for one in story.attempts
    ] == [("1.1", 0, 0.1, "failed"), ("1.2", 0.1, 0.4, "stopped"), ("1.3", 0.35, 0.4, "won")]
    assert [(node.number, told) for node, told in story.fates()] == [
        ("1.1", "failed after 100 ms: <refused> & gone"),
        ("1.2", "stopped after 300 ms"),
        ("1.3", "won after 50 ms"),
        ("1.4", "cut: is not wanted"),
        ("1.5", "not tried"),
    ]
    assert story.preparation == 0.0


def test_as_text() -> None:
    assert raced().text().splitlines() == [
        "1",
        "├── 1.1 192.0.2.0:80  (given first; failed after 100 ms: <refused> & gone)",
        "├── 1.2 192.0.2.1:80  (given first; stopped after 300 ms)",
        "├── 1.3 192.0.2.2:80  (given first; won after 50 ms)",
        "├── 1.4 192.0.2.3:80  (given first; cut: is not wanted)",
        "└── 1.5 192.0.2.4:80  (given first; not tried)",
    ]
    lines = raced().timeline().splitlines()
    assert lines[0].split() == ["0", "ms", "400", "ms"]
    columns = [(line.index("=") if "=" in line else None, line) for line in lines[1:]]
    # Each bar begins where its attempt began, and ends with its mark.
    assert columns[0][1][5:].startswith("=" * 11 + "x")
    assert columns[1][1][5:53] == " " * 11 + "=" * 36 + "|"
    assert ">" in columns[2][1]
    assert all(line.rstrip().endswith(("gone", "ms")) for line in lines[1:])


def test_as_a_picture() -> None:
    root = ET.fromstring(raced().svg())
    space = "{http://www.w3.org/2000/svg}"
    bars = [
        (float(bar.get("x") or 0), float(bar.get("width") or 0))
        for bar in root.iter(f"{space}rect")
        if bar.get("height") == "18"
    ]
    assert bars == [(10.0, 95.0), (105.0, 285.0), (342.5, 47.5)]
    labels = [text.text or "" for text in root.iter(f"{space}text")]
    assert any("<refused> & gone" in label for label in labels)


def test_the_picture_names_the_winner_and_cuts_nothing_off() -> None:
    root = Node(None, "", Branch.ENDPOINTS)
    peer = RemoteEndpoint().with_hostname("a-long-name." * 12 + "example").with_port(80)
    candidate = Candidate((find("tcp"),), ("2001:db8:1111:2222:3333:4444:5555:6666", 65535, 0, 0))
    for _ in range(2):
        Node(root, "there", candidate=candidate)
    race = Race(root)
    race.start(0.0)
    race.failed(root.children[0], 0.1, OSError("all kinds of reasons " * 40 + "界" * 60))
    race.succeeded(root.children[1], 0.2)
    picture = ET.fromstring(Explanation(root, race.story, remotes=[peer]).svg())
    space = "{http://www.w3.org/2000/svg}"
    width, height = (float(picture.get(name) or 0) for name in ("width", "height"))
    texts = list(picture.iter(f"{space}text"))
    for text in texts:
        words = text.text or ""
        letters = sum(12 if letter == "界" else 7 for letter in words)  # pixels, in DejaVu Sans
        assert text.get("text-anchor") or float(text.get("x") or 0) + letters < width, words
        assert float(text.get("y") or 0) < height
    headline = texts[0].text or ""
    assert headline.startswith("to a-long-name.")
    assert headline.endswith(f"2 attempts, won by {candidate}")
    bold = [text.text for text in texts if text.get("font-weight") == "bold"]
    assert bold == [headline, f"1.2 {candidate}"]
    told = " ".join(text.text or "" for text in texts)
    assert told.count("all kinds of reasons") == 40


def test_nothing_was_attempted() -> None:
    story = Explanation(Node(None, "", Branch.ENDPOINTS), [])
    assert story.timeline() == "nothing was attempted"
    assert story.attempts == []
    assert "nothing was attempted" in story.svg()
    ET.fromstring(story.svg())


def test_short_times_have_a_decimal() -> None:
    root = Node(None, "", Branch.ENDPOINTS)
    Node(root, "there", candidate=Candidate((find("tcp"),), ("192.0.2.1", 80)))
    race = Race(root)
    race.start(0.0)
    race.succeeded(root.children[0], 0.00042)
    assert Explanation(root, race.story).timeline().endswith("won after 0.4 ms")


def test_the_first_line_is_the_peer_and_what_was_asked_for() -> None:
    wish = TransportProperties().prefer("keepAlive").require("interface", "lo")
    ends = [remote(number) for number in (1, 2, 3, 4)]
    text = Preconnection(None, ends, wish, SecurityParameters()).explain().text()
    assert text.splitlines()[0] == (
        f"1 {HERE}:1 or {HERE}:2 or {HERE}:3 or 1 more"
        "  (asked for: security, prefer keepAlive, require interface lo)"
    )
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, remote(free_port())).initiate(timeout=10)
    first = caught.value.history.text().splitlines()[0]
    assert first == f"1 {HERE}:{caught.value.history.attempts[0].candidate.remote[1]}"


@pytest.mark.rfc("CT-02", "DN-02")
def test_a_connection_knows_how_it_came_about() -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        ends = [remote(free_port()), remote(port)]
        connection = Preconnection(None, ends).initiate(timeout=10)
        story = connection.history
        assert story is not None
        assert [attempt.fate for attempt in story.attempts] == ["failed", "won"]
        assert isinstance(story.attempts[0].error, ConnectionRefusedError)
        assert str(story.attempts[1].candidate) == f"tcp to {HERE}:{port}"
        assert "cut: adds security that was not asked for" in story.text()
        connection.abort()
        assert connection.history is story


def test_an_accepted_connection_was_not_chosen() -> None:
    with Preconnection(local()).listen() as listener:
        end = remote(listener.local_endpoints[0].port or 0)
        client = Preconnection(None, end).initiate(timeout=10)
        server = listener.accept(timeout=10)
        assert server.history is None
        assert client.history is not None
        client.abort()
        server.abort()


@pytest.mark.rfc("I-07", "ER-12")
def test_an_error_has_the_fate_of_every_candidate() -> None:
    with blackhole() as dead:
        ends = [remote(dead), *(remote(free_port()) for _ in range(2))]
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(None, ends).initiate(timeout=0.4)
    error = caught.value
    assert error.reason is Reason.TIMEOUT
    fates = [one.fate for one in error.history.attempts]
    assert fates[1:] == ["failed", "failed"]
    assert fates[0] in ("failed", "stopped")
    again = pickle.loads(pickle.dumps(error))
    assert again.history.text() == error.history.text()


def test_several_causes_are_a_group() -> None:
    ends = [remote(free_port()) for _ in range(3)]
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, ends).initiate(timeout=10)
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert group.subgroup(ConnectionRefusedError) is not None
    assert len(group.exceptions) == 3


# -- Before anything happens --


@pytest.mark.rfc("CT-01", "PE-03", "CG-05")
def test_explain_opens_nothing() -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        preconnection = Preconnection(
            None, [remote(port), RemoteEndpoint().with_hostname("localhost").with_port(port)]
        )
        story = preconnection.explain(timeout=10)
        assert f"1.1.1.1 {HERE}:{port}" in story.text()
        assert f"1.1.1.2.2 {HERE}:{port}  (found by localhost)" in story.text()
        assert story.moments == []
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert preconnection.initiate(timeout=10).history is not story


def test_explain_without_names() -> None:
    end = RemoteEndpoint().with_hostname("a.invalid").with_port(1)
    first, line = [
        line
        for line in Preconnection(None, end).explain(resolve=False).text().splitlines()
        if "a.invalid" in line
    ]
    assert first == "1 a.invalid:1"
    assert line.endswith("1.1.1.1 a.invalid:1")


def test_explain_says_that_a_name_is_unknown() -> None:
    end = RemoteEndpoint().with_hostname("a.invalid").with_port(1)
    assert "cut: not resolved" in Preconnection(None, end).explain(timeout=10).text()


def test_explain_raises_what_initiate_would_raise_early() -> None:
    wish = TransportProperties().require("multistreaming")
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, remote(1), wish).explain()
    assert caught.value.reason is Reason.NO_CANDIDATES


def test_explicit_wishes_are_reasons() -> None:
    wish = TransportProperties().prefer("keepAlive").avoid("congestionControl")
    wish.no_preference("reliability").no_preference("preserveOrder").set("safelyReplayable", True)
    text = Preconnection(None, remote(1), wish).explain().text()
    assert "keepAlive is preferred, and it has it" in text
    assert "congestionControl is to be avoided, and it has it" in text
    assert text.index("1.1.1 tcp") < text.index("1.1.2 udp")


@pytest.mark.rfc("SR-02", "A-02")
def test_opportunistic_security_is_explained_as_it_is_tried() -> None:
    security = SecurityParameters.opportunistic()
    text = Preconnection(None, remote(1), None, security).explain().text()
    assert "1.1.1 tls/tcp" in text
    assert "1.1.2 tcp  (only when all before have failed)" in text


@pytest.mark.rfc("SR-02", "A-02")
def test_what_came_of_security_is_told_where_it_was_opportunistic() -> None:
    security = SecurityParameters.opportunistic()
    with plain_listener() as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with listener.accept()[0]:
                pass  # it does not speak TLS
            with listener.accept()[0] as peer:
                assert peer.recv(1) == b""

        serving = in_greenlet(serve)
        connection = Preconnection(None, remote(port), None, security).initiate(timeout=10)
        story = connection.history
        assert story is not None
        assert story.earlier is not None
        assert story.earlier.earlier is None
        assert [one.fate for one in story.earlier.attempts] == ["failed"]
        assert [one.fate for one in story.attempts] == ["won"]
        assert 0 < story.earlier.attempts[0].started < story.attempts[0].started
        text, line = story.text(), story.timeline()
        assert text.index("tls/tcp") < text.index("failed after") < text.index("won after")
        assert line.index(f"tls/tcp to {HERE}:{port}: failed") < line.index("won after")
        connection.close()
        assert serving.get() is None
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, remote(free_port()), None, security).initiate(timeout=10)
    earlier = caught.value.history.earlier
    assert [one.fate for one in earlier.attempts] == ["failed"]
    assert pickle.loads(pickle.dumps(caught.value)).history.earlier.text() == earlier.text()
