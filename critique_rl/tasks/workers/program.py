"""The judge of kind command, in a worker's process: it asks a program in JSON lines.

    to the program      {"id": 7, "completion": "...", "row": {...}}
    from the program    {"ready": true} once, then {"id": 7, "reward": 0.5} per question;
                        {"id": 7, "unscored": "why"} or {"id": 7, "unreadable": true} instead

The program starts in the process group of the worker, so what kills the worker kills it too. One
question is open at a time: pipes cannot fill both ways, and no answer belongs to another question.
A program that ends, or prints anything else, loses the question. `workers.pool` then starts a
fresh one, and asks again. Left out: deadlines, which the pool keeps.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from critique_rl.tasks.workers.child import PIPE_PIECE, AnswerLost, resident_bytes

READY_SECONDS = 100.0
"""Seconds until a program must be ready; the worker itself has a little longer."""
SLOW_START = 10.0
"""Seconds after which the log says that a program is waited for."""
LOOK_SECONDS = 0.05
"""Seconds between two looks at a program's memory."""
LONGEST_LINE = 1 << 20
"""Bytes of a line that a program may print."""
LONGEST_KEPT = 10_000
"""Characters of an answer and of a reason that a verdict keeps."""
LONGEST_TAIL = 2000
"""Bytes of a program's last words on stderr that are kept."""
LONGEST_WORDS = 200
"""Characters of a program's last words that a message shows."""
SHOWN = 80
"""Characters of a wrong line, or of a wrong value, that a message shows."""
READY = '{"ready": true}'
CRASH = "crash"
"""Code of a question whose program ended."""
NO_LINE = "no JSON line"
"""Code of a question for which a program printed something else."""
WRONG_ID = "wrong id"
"""Code of a question for which a program answered another one."""
DROPPED = ("PYTHONPATH", "PYTHONHOME")
"""Variables that lead to the packages of this environment."""
ADVICE = "stdout is for answers alone, so send prints to stderr"
NO_REASON = "no reason given"
VerdictFields = list[Any]
"""[outcome, answer or None, reason, confidence, details], as JSON."""


class CommandFailed(Exception):
    """A program that does not start. The message says why."""


def program_judge(
    argv: Sequence[str], threshold: float, memory: int
) -> Callable[[Any], VerdictFields]:
    """Start a program, and build the judge of {"text", "row"} that asks it.

    Args:
        argv: The program and its arguments.
        threshold: The least reward that is right.
        memory: Bytes that the program may hold.

    Raises:
        CommandFailed: It cannot be started, ends at once, or is not ready in time.
    """
    program = Program(argv, memory)
    program.wait_until_ready()

    def judge(question: Mapping[str, Any]) -> VerdictFields:
        text = question["text"]
        row = question["row"]
        reply = program.ask(text, row)
        return read_reply(reply, threshold)

    return judge


class Program:
    """A program that runs, and the lines between it and this process.

    Args:
        argv: The program and its arguments.
        memory: Bytes that it may hold.
    """

    def __init__(self, argv: Sequence[str], memory: int):
        self.name = argv[0]
        self.memory = memory
        self.process = _launch(argv)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._to_program = process.stdin.fileno()
        self._from_program = process.stdout.fileno()
        # A program that reads nothing must not block this process.
        os.set_blocking(self._to_program, False)
        os.set_blocking(self._from_program, False)
        self._unread = bytearray()
        self._has_ended = False
        self._number = 0
        self._tail = bytearray()
        self._words = threading.Thread(
            target=_pass_on, args=(process.stderr.fileno(), self._tail), daemon=True
        )
        self._words.start()

    def wait_until_ready(self) -> None:
        """Wait for the line {"ready": true}.

        Raises:
            CommandFailed: Another line, the program's end, or none in time.
        """
        start = time.monotonic()
        end = start + READY_SECONDS
        is_logged = False
        while b"\n" not in self._unread:
            self._wait()
            self._read_some()
            if self._has_ended:
                words = self._end()
                raise CommandFailed(f"the program {words} before it printed {READY}")
            if time.monotonic() >= end:
                words = self._last_words()
                raise CommandFailed(f"no line {READY} in {READY_SECONDS:g} seconds{words}")
            if not is_logged and time.monotonic() >= start + SLOW_START:
                self._say(f"waiting for the line {READY}, up to {READY_SECONDS:g} seconds")
                is_logged = True
        line = self._take_line()
        reply = _read_object(line)
        if reply.get("ready") is not True:
            raise CommandFailed(f"got the line {_shown(line)}, expected {READY}: {ADVICE}")

    def ask(self, completion: str, row: Any) -> dict[str, Any]:
        """The program's reply to one question.

        Raises:
            AnswerLost: The program ended, or printed something else.
            MemoryError: It holds more than it may.
        """
        self._refuse_stray_line()
        self._number += 1
        question = {"id": self._number, "completion": completion, "row": row}
        # As ASCII, which every reader takes, halves of characters too.
        text = json.dumps(question) + "\n"
        line = self._exchange(text.encode())
        reply = _read_object(line)
        if "id" not in reply:
            self._say(f"got the line {_shown(line)}, expected an answer: {ADVICE}")
            raise AnswerLost(NO_LINE)
        number = reply["id"]
        # True equals 1, and is no id.
        if type(number) is not int or number != self._number:
            shown = repr(number)[:SHOWN]
            self._say(f"got an answer with id {shown}, expected {self._number}")
            raise AnswerLost(WRONG_ID)
        return reply

    def _refuse_stray_line(self) -> None:
        """Raises AnswerLost where the program has ended, or printed what nobody asked for."""
        self._read_some()
        if self._unread:
            line = self._take_line()
            reply = _read_object(line)
            self._say(f"got {_shown(line)} that nobody asked for: one line per question")
            raise AnswerLost(WRONG_ID if "id" in reply else NO_LINE)
        if self._has_ended:
            words = self._end()
            self._say(f"the program {words} between two questions")
            raise AnswerLost(CRASH)

    def _exchange(self, line: bytes) -> bytes:
        """Write a line and read one, both as the pipes take and give. Raises as `ask` does."""
        unsent = memoryview(line)
        while unsent or b"\n" not in self._unread:
            is_ready = self._wait(has_unsent=len(unsent) > 0)
            self._read_some()
            if self._has_ended and b"\n" not in self._unread:
                words = self._end()
                self._say(f"the program {words} while it judged")
                raise AnswerLost(CRASH)
            if len(self._unread) > LONGEST_LINE:
                self._say(f"got a line of over {LONGEST_LINE:,} bytes")
                raise AnswerLost(NO_LINE)
            written = self._write_some(unsent)
            unsent = unsent[written:]
            if not is_ready and resident_bytes(self.process.pid) > self.memory:
                raise MemoryError
        return self._take_line()

    # ---- pipes -----------------------------------------------------------------------------------

    def _wait(self, has_unsent: bool = False) -> bool:
        """Wait until a pipe is ready, a moment at most; whether one is."""
        poll = select.poll()
        poll.register(self._from_program, select.POLLIN)
        if has_unsent:
            poll.register(self._to_program, select.POLLOUT)
        ready = poll.poll(1000 * LOOK_SECONDS)
        return len(ready) > 0

    def _read_some(self) -> None:
        """Read what the program has printed."""
        try:
            piece = os.read(self._from_program, PIPE_PIECE)
        except BlockingIOError:
            return
        self._unread += piece
        self._has_ended = piece == b""

    def _write_some(self, unsent: memoryview) -> int:
        """Write as much as the pipe takes; how much is done with."""
        piece = unsent[:PIPE_PIECE]
        if not piece:
            return 0
        try:
            return os.write(self._to_program, piece)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            # It has closed its stdin; the end of its stdout tells the rest.
            return len(unsent)

    def _take_line(self) -> bytes:
        """The first line that was read, or what there is of it."""
        read = bytes(self._unread)
        line, _, rest = read.partition(b"\n")
        self._unread = bytearray(rest)
        return line

    # ---- words -----------------------------------------------------------------------------------

    def _say(self, words: str) -> None:
        """Tell the log of the run."""
        print(f"[{self.name}: {words}]", file=sys.stderr, flush=True)

    def _end(self) -> str:
        """How the program ended, with its last words."""
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed its stdout"
        # Its last words may still be in the pipe.
        self._words.join(1)
        words = self._last_words()
        if code < 0:
            return f"was killed by signal {-code}{words}"
        return f"ended with exit code {code}{words}"

    def _last_words(self) -> str:
        """The last line of the program's stderr, in brackets; "" without one."""
        text = self._tail.decode(errors="replace")
        lines = text.strip().splitlines()
        if not lines:
            return ""
        last = lines[-1].strip()
        return f" ({last[:LONGEST_WORDS]})"


def _launch(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program with pipes. Raises CommandFailed where it cannot be started."""
    environment = dict(os.environ)
    for name in DROPPED:
        environment.pop(name, None)
    # A program in Python that forgets to flush would hang.
    environment["PYTHONUNBUFFERED"] = "1"
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        folder = os.getcwd()
        raise CommandFailed(
            f"argv {argv[0]!r} cannot be started: {error.strerror} (in {folder})"
        ) from error


def _pass_on(pipe: int, tail: bytearray) -> None:
    """Pass what a program says on stderr on to this process's, and keep the end of it."""
    while piece := os.read(pipe, PIPE_PIECE):
        tail += piece
        del tail[:-LONGEST_TAIL]
        os.write(2, piece)


def _read_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; {} where it is none."""
    try:
        text = line.decode()
        value = json.loads(text)
    # UnicodeDecodeError and JSONDecodeError are ValueErrors.
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, dict):
        return value
    return {}


def _shown(line: bytes) -> str:
    start = line[:SHOWN]
    text = start.decode(errors="replace")
    return repr(text)


# ---- replies -------------------------------------------------------------------------------------


def read_reply(reply: Mapping[str, Any], threshold: float) -> VerdictFields:
    """The verdict of a reply to the right question.

    Args:
        reply: As the program sent it.
        threshold: The least reward that is right.

    Returns:
        A verdict. A reply that gives no reward, or several things, is unscored with that reason.
    """
    answer = _kept(reply.get("answer"))
    reason = _kept(reply.get("reason")) or ""
    reward = reply.get("reward")
    unscored = reply.get("unscored")
    is_unreadable = reply.get("unreadable") is True
    if unscored is not None:
        if reward is not None or is_unreadable:
            return _unscored("reply: got unscored with a reward, or with unreadable")
        words = _kept(unscored) or NO_REASON
        return _unscored(words)
    if is_unreadable:
        # False equals 0, and is no reward.
        if reward is not None and (isinstance(reward, bool) or reward != 0):
            return _unscored(f"reply: got unreadable with the reward {_as_json(reward)}")
        return ["unreadable", answer, reason, None, {}]
    if reward is None and "reward" not in reply:
        keys = ", ".join(key for key in reply if key != "id") or "nothing more"
        return _unscored(f"reply: got no reward, unscored or unreadable, but {_kept(keys)}")
    is_number = isinstance(reward, int | float) and not isinstance(reward, bool)
    # NaN is in no range.
    if reward is None or not is_number or not 0 <= reward <= 1:
        return _unscored(f"reward: got {_as_json(reward)}, expected a number from 0 to 1")
    outcome = "right" if reward >= threshold else "wrong"
    details = {"reward": reward}
    return [outcome, answer, reason, None, details]


def _unscored(reason: str) -> VerdictFields:
    return ["unscored", None, reason]


def _kept(value: Any) -> str | None:
    """A text of a reply, cut short; None where there is none."""
    if value is None:
        return None
    text = str(value)
    return text[:LONGEST_KEPT]


def _as_json(value: Any) -> str:
    """A value as the program wrote it, cut short; NaN too."""
    text = json.dumps(value)
    return text[:SHOWN]
