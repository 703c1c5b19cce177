"""The programs that are measured and those that drive them, what they cost, and the rounds.

What a server costs comes from the operating system's own accounting (``/proc/PID/schedstat``, in
nanoseconds), read between the turns, so that neither its start nor the opening of the connections
counts.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .figures import calibrated
from .questions import Contender, Question, contender

__all__ = ["Answer", "Pace", "Programs", "Workshop", "build", "cpu_ns", "memory_bytes"]

HERE = Path(__file__).parent
HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds that any answer may take
BASE_CONNECTIONS = 100  # of the memory question: what these cost is not counted
SETTLE = 0.2  # seconds for a server to notice that connections have gone


class ProgramError(Exception):
    """A program has ended, or said nothing, or could not be built."""


def build(directory: Path) -> bool:
    """Compile the C programs into *directory*; whether the load generator can do TLS."""
    directory.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    common = [compiler, "-O2", "-Wall", "-Wextra", "-o"]
    _compile([*common, str(directory / "limit"), str(HERE / "limit.c")])
    load = [*common, str(directory / "load"), str(HERE / "load.c")]
    try:
        _compile([*load, "-DWITH_TLS", "-lssl", "-lcrypto"])
    except ProgramError:
        _compile(load)
        return False
    return True


def _compile(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise ProgramError(f"a C compiler is needed: {error}") from error
    except subprocess.CalledProcessError as error:
        raise ProgramError(f"{' '.join(command)}\n{error.stderr}") from error


def cpu_ns(pid: int) -> int:
    """The CPU time of a process, of all its threads (nanoseconds)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # that thread has ended
            continue
    return total


def memory_bytes(pid: int) -> int:
    """What a process has in memory (bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Program:
    """A process that we talk to line by line."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str] | None = None,
        cores: set[int] | None = None,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=environment,
        )
        self.pid = self._process.pid
        if cores:
            os.sched_setaffinity(self.pid, cores)
        self._rest = b""

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise ProgramError(self._reason("has ended")) from None

    def hear(self, patience: float = PATIENCE) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        end = time.monotonic() + patience
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ProgramError(self._reason(f"has said nothing for {patience:.0f} s"))
            more = self._process.stdout.read(4096)
            if not more:
                raise ProgramError(self._reason("has ended"))
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def _reason(self, what: str) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        program = Path(self._command[0 if len(self._command) < 2 else 1]).name
        return f"{program} {what}" + (f": {said[-1]}" if said else "")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Answer:
    """What a driver says of one turn."""

    seconds: float
    lost: int
    resumed: int
    cpu_ns: int | None  # where the driver itself is what is measured

    @classmethod
    def parse(cls, line: str) -> Answer:
        words = line.split()
        if not words or words[0] != "ok":
            raise ProgramError(f"not an answer: {line!r}")
        cpu = int(float(words[4]) * 1e9) if len(words) > 4 else None
        return cls(float(words[1]), int(words[2]), int(words[3]), cpu)


def apart(cores: set[int]) -> tuple[set[int], set[int]]:
    """The core for servers, and the other *cores*, for those who drive them; both empty if there is
    only one.  Else it is chance whether they share one, which makes bulk data cost twice as much.
    """
    if len(cores) < 2:
        return set(), set()
    last = max(cores)
    return {last}, cores - {last}


SERVER_CORES, DRIVER_CORES = apart(os.sched_getaffinity(0))


@dataclass
class Workshop:
    """Where the compiled programs and the certificate are, and whether there is TLS."""

    directory: Path
    certificate: Path
    tls: bool
    python: str = sys.executable
    wrapper: list[str] = field(default_factory=list)  # valgrind, say
    environment: dict[str, str] | None = None

    def server(self, who: Contender, role: str, tls: bool) -> Program:
        if who.program == "limit":
            words = [*self.wrapper, str(self.directory / "limit"), role]
            return Program(words, self.environment, SERVER_CORES)
        words = [who.words[0], role, *who.words[1:]]
        if tls:
            words += ["--tls", str(self.certificate)]
        command = [*self.wrapper, self.python, str(HERE / "servers.py"), *words]
        return Program(command, self.environment, SERVER_CORES)

    def load(self, question: Question, who: Contender, port: int) -> Program:
        words = ["-s", str(question.size), "-p", str(who.framers)]
        if question.tls:
            words.append("-t")
        if question.resume:
            words.append("-r")
        command = [str(self.directory / "load"), *words, question.mode, HOST, str(port)]
        return Program(command, cores=DRIVER_CORES)

    def initiator(self, who: Contender, port: int, patience: float = PATIENCE) -> Program:
        words = [who.words[0], HOST, str(port)]
        if who.words[1:]:
            words = [*who.words, str(self.certificate)]
        command = [*self.wrapper, self.python, str(HERE / "initiators.py"), *words]
        made = Program(command, self.environment, DRIVER_CORES)
        try:
            made.hear(patience)
        except BaseException:
            made.close()
            raise
        return made


class Programs:
    """The servers that run already: starting one takes longer than a turn."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._servers: dict[tuple[Any, ...], tuple[Program, int]] = {}

    def server(self, who: Contender, role: str, tls: bool, fresh: bool = False) -> Any:
        """The server and its port."""
        key = (who.name, role, tls)
        if fresh:
            self._forget(key)
        if key not in self._servers:
            program = self.workshop.server(who, role, tls)
            try:
                self._servers[key] = (program, int(program.hear()))
            except BaseException:
                program.close()
                raise
        return self._servers[key]

    def _forget(self, key: tuple[Any, ...]) -> None:
        if key in self._servers:
            self._servers.pop(key)[0].close()

    def close(self) -> None:
        for key in list(self._servers):
            self._forget(key)


class Turn:
    """One contender in one question: whom to measure and whom to drive."""

    def __init__(self, question: Question, name: str, programs: Programs) -> None:
        who = contender(name)
        self._question = question
        self.name = name
        self.resumed = self.lost = self.units = 0
        self.count = question.first
        connections = question.connections_of(name)
        if question.shape in ("initiate", "memory"):
            port = 0
            if question.shape == "initiate":
                _, port = programs.server(contender("c"), "echo", False)
            self._driver = programs.workshop.initiator(who, port)
            self._measured = self._driver
            self._second = question.size
            return
        self._measured, port = programs.server(who, question.role, question.tls)
        self._driver = programs.workshop.load(question, who, port)
        self._second = question.active or connections
        if question.unit == "GB":
            self._second = question.size
        if question.mode != "connect":
            self._driver.tell(f"open {connections}")
            self._driver.hear()

    def run(self, count: int) -> tuple[int, Answer]:
        """Do *count* of it: the CPU time (ns), and what the driver says."""
        before = cpu_ns(self._measured.pid)
        self._driver.tell(f"run {count} {self._second}")
        answer = Answer.parse(self._driver.hear())
        spent = cpu_ns(self._measured.pid) - before
        self.lost += answer.lost
        self.resumed += answer.resumed
        self.units += count
        return spent if answer.cpu_ns is None else answer.cpu_ns, answer

    def warm_up(self, seconds: float) -> None:
        """Find out how many make a turn of *seconds*."""
        question = self._question
        for _ in range(3):
            _, answer = self.run(self.count)
            self.count = calibrated(
                self.count, answer.seconds, seconds, question.first // 4 or 1, question.most
            )
            if answer.seconds > seconds / 4:
                break
        self.lost = self.resumed = self.units = 0

    def close(self) -> None:
        self._driver.close()


@dataclass(frozen=True)
class Pace:
    """How long a turn takes (seconds), and how many rounds there are."""

    turn: float
    rounds: int


def ask(question: Question, programs: Programs, pace: Pace) -> dict[str, Any]:
    """The answer to one question: for each contender the costs and the rates, one per round.

    Costs are CPU time: microseconds for each unit, seconds for each GB; memory is in kB.
    """
    if question.shape == "idle":
        return _ask_memory(question, programs)
    turns: list[Turn] = []
    result: dict[str, Any] = {"contenders": {}, "skipped": {}}
    try:
        for name in question.contenders:
            try:
                turn = Turn(question, name, programs)
                turns.append(turn)
                turn.warm_up(pace.turn)
            except ProgramError as error:
                result["skipped"][name] = str(error)
                if turns and turns[-1].name == name:
                    turns.pop().close()
        found = {turn.name: {"cost": [], "rate": []} for turn in turns}
        for number in range(pace.rounds):
            shift = number % len(turns) if turns else 0
            # Each round begins with another, so that nobody always has the same neighbour in time.
            for turn in turns[shift:] + turns[:shift]:
                spent, answer = turn.run(turn.count)
                cost, rate = _per_unit(question, turn.count, spent, answer.seconds)
                found[turn.name]["cost"].append(round(cost, 4))
                found[turn.name]["rate"].append(round(rate, 4))
        for turn in turns:
            more = found[turn.name]
            more["turn"] = turn.count
            if turn.lost:
                more["lost"] = turn.lost
            if question.unit == "handshake":
                more["resumed"] = round(turn.resumed / turn.units, 3)
            result["contenders"][turn.name] = more
    finally:
        for turn in turns:
            turn.close()
    return result


def _per_unit(question: Question, count: int, spent: int, seconds: float) -> tuple[float, float]:
    if question.unit == "GB":
        return spent / count, count / seconds / 1e9  # ns per byte are seconds per GB
    if question.unit == "establishment":
        return seconds / count * 1e6, count / seconds  # how long it takes, and not what it costs
    return spent / count / 1e3, count / seconds


def _ask_memory(question: Question, programs: Programs) -> dict[str, Any]:
    result: dict[str, Any] = {"contenders": {}, "skipped": {}}
    for name in question.contenders:
        who = contender(name)
        driver = None
        try:
            server, port = programs.server(who, question.role, question.tls, fresh=True)
            driver = programs.workshop.load(question, who, port)
            driver.tell(f"open {BASE_CONNECTIONS}")
            driver.hear()
            before = memory_bytes(server.pid)
            driver.tell(f"open {question.connections}")
            driver.hear()
            grown = memory_bytes(server.pid) - before
            each = grown / (question.connections - BASE_CONNECTIONS) / 1000
            result["contenders"][name] = {"cost": [round(each, 3)], "rate": []}
        except ProgramError as error:
            result["skipped"][name] = str(error)
        finally:
            if driver is not None:
                driver.close()
    time.sleep(SETTLE)
    return result
