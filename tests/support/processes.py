"""Programs that the tests start: run to an end, or kept running and ended by their own pid."""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import Final

POLL_SECONDS: Final = 0.01
TAIL_LINES: Final = 15


class HarnessError(Exception):
    """The test bed itself failed (a program ended, a time limit passed): what, where and why."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal's handler break off what is done inside: it is called afterwards.

    For short steps that must be done whole, or not begun, for what they made to be found again.
    """
    caught: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (SIGINT, SIGTERM):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda told, _frame: caught.append(told))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(caught):
            signal.raise_signal(late)


def wait_for(what: str, predicate: Callable[[], bool], timeout: float = 10.0) -> None:
    """Return as soon as `predicate()` is true; `HarnessError` after `timeout` seconds."""
    give_up = time.monotonic() + timeout  # noqa: TID251 - the test bed waits for real programs
    while not predicate():
        if time.monotonic() > give_up:  # noqa: TID251 - as above
            raise HarnessError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(POLL_SECONDS)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    timeout: float = 60.0,
    accept: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; `HarnessError` with its words unless it exits as accepted."""
    command = [str(word) for word in argv]
    program = None
    try:
        with undisturbed():
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=env,
            )
        stdout, stderr = program.communicate(stdin, timeout)
    except FileNotFoundError as error:
        raise HarnessError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{' '.join(command)}: not finished after {timeout:g} s") from error
    finally:
        if program is not None:
            _bury(program)
    done = subprocess.CompletedProcess(command, program.returncode, stdout, stderr)
    if done.returncode not in accept:
        raise HarnessError(
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def _bury(program: subprocess.Popen[str]) -> None:
    """See it gone, and what it made whole: an interrupted test bed removes what it finds."""
    with undisturbed():
        program.kill()
        program.wait()
        for pipe in (program.stdin, program.stdout, program.stderr):
            if pipe:
                pipe.close()


class Process:
    """A program left running, its output in two files beside each other."""

    def __init__(
        self, argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `argv`; `log` is the path of its output less the endings `.out` and `.err`."""
        self.argv = [str(word) for word in argv]
        self.stdout_path = log.with_name(f"{log.name}.out")
        self.stderr_path = log.with_name(f"{log.name}.err")
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            try:
                # A session of its own: Ctrl-C reaches the test bed alone, which then ends its
                # programs in order.
                with undisturbed():
                    self._popen = subprocess.Popen(
                        self.argv,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        env=env,
                        start_new_session=True,
                    )
            except FileNotFoundError as error:
                raise HarnessError(f"{self.argv[0]} is not installed") from error

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._popen.pid

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return self.stderr_path.read_text(errors="replace")

    def running(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._popen.poll() is None

    def wait_until(self, what: str, predicate: Callable[[], bool], timeout: float = 10.0) -> None:
        """`wait_for` that fails at once, with the program's own words, when the program ends."""

        def holds() -> bool:
            ended = not self.running()
            if predicate():
                return True
            if ended:
                raise HarnessError(f"ended before {what}: {self.describe()}")
            return False

        try:
            wait_for(what, holds, timeout)
        except HarnessError as error:
            if self.running():
                error.add_note(self.describe())
            raise

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its own end; the exit code, negative for a signal."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(f"still running after {timeout:g} s: {self.describe()}") from error

    def signal(self, number: Signals) -> None:
        """Send it a signal; nothing if it has ended."""
        self._popen.send_signal(number)

    def finish(self, timeout: float = 10.0) -> int:
        """`wait`, but what does not end in time is killed before `HarnessError` is raised."""
        try:
            return self.wait(timeout)
        except HarnessError:
            self.signal(SIGKILL)
            self._popen.wait()
            raise

    def stop(self, number: Signals = SIGTERM, timeout: float = 10.0) -> int:
        """Ask it to end, then `finish`."""
        self.signal(number)
        return self.finish(timeout)

    def describe(self) -> str:
        """Command, state and last words, for a failed test's report."""
        code = self._popen.poll()
        state = "running" if code is None else f"ended with {code}"
        words = (self.stdout + self.stderr).splitlines()[-TAIL_LINES:]
        return "\n    ".join([f"{' '.join(self.argv)} ({state})", *words])
