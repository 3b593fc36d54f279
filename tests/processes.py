"""Python processes that have torch from the start: its import takes most of a short process's time.

A process that has imported torch, or what else a test names, and done nothing else, forks for each
program; the child runs it as ``python -c`` does, to the interpreter's own end. Nothing of this
package is imported before the program is. Where a system has no fork, or a test is about what a
process imports, use :mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO

#: what the commands stand on; those that are installed
WITH_COMMANDS = ("torch", "fastapi", "uvicorn", "prometheus_client", "typer", "rich.console")
#: what components of both frameworks stand on, and models that transformers computes
WITH_LIBRARIES = (
    "torch",
    "langchain_core.retrievers",
    "llama_index.core.schema",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.models.modernbert.modeling_modernbert",
)

_FORKS = """
import contextlib, gc, json, os, signal, socket, sys
for name in sys.argv[2:]:
    with contextlib.suppress(ImportError):
        __import__(name)
# a child that looks through all of it at its end copies the memory that it lies in
gc.freeze()
channel = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    message, files, _, _ = socket.recv_fds(channel, 2**20, 4)
    if not message:
        os._exit(0)
    # two forks: the first child waits for the second, and tells how it ended
    if os.fork():
        for file in files:
            os.close(file)
        continue
    channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = files
    child = os.fork()
    if child:
        for file in streams:
            os.close(file)
        os.write(status, b"%d\\n" % child)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(status, b"%d\\n" % ended)
        os._exit(0)
    os.close(status)
    for number, (file, name, mode) in enumerate(zip(streams, ("stdin", "stdout", "stderr"), "rww")):
        os.dup2(file, number)
        os.close(file)
        # anew: what a stream can do is looked up when it is made
        setattr(sys, name, os.fdopen(number, mode, 1 if name == "stderr" else -1, closefd=False))
    break
program, arguments, environment = json.loads(message)
sys.argv = ["-c", *arguments]
os.environ.clear()
os.environ.update(environment)
sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
del contextlib, gc, json, signal, socket, channel, message, files, streams, status, child, number
del file, name, mode, arguments, environment
exec(compile(program, "<string>", "exec"))
"""


class Process:
    """A program that runs, with the parts of :class:`subprocess.Popen` that tests use.

    :param program: what would follow ``python -c``.
    :param environment: all of its variables; this process's by default.
    :param imported: modules that it has from the start.
    """

    def __init__(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        imported: Sequence[str] = WITH_COMMANDS,
    ) -> None:
        variables = dict(environment or os.environ)
        message = json.dumps([program, arguments, variables])
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr), (from_status, status) = (
            os.pipe() for _ in range(4)
        )
        channel = _forking(tuple(imported), variables.get("OMP_NUM_THREADS"))
        socket.send_fds(channel, [message.encode()], [stdin, stdout, stderr, status])
        for file in (stdin, stdout, stderr, status):
            os.close(file)
        self.stdin: IO[bytes] = os.fdopen(to_stdin, "wb")
        self.stdout: IO[str] = os.fdopen(from_stdout, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(from_stderr, encoding="utf-8")
        self._status: IO[bytes] = os.fdopen(from_status, "rb", buffering=0)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout_s: float = 60) -> int:
        """Its exit status, once it has ended."""
        if self.returncode is None and not select.select([self._status], [], [], timeout_s)[0]:
            raise TimeoutError(f"it has not ended after {timeout_s} s")
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it if it runs, and close its streams."""
        self.send_signal(signal.SIGKILL)
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr, self._status):
            stream.close()


def run(
    program: str,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    imported: Sequence[str] = WITH_COMMANDS,
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it writes must fit a pipe."""
    process = Process(program, *arguments, environment=environment, imported=imported)
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        status = process.wait(timeout_s)
        return subprocess.CompletedProcess(
            [program, *arguments], status, process.stdout.read(), process.stderr.read()
        )
    finally:
        process.end()


@cache
def _forking(imported: tuple[str, ...], n_threads: str | None) -> socket.socket:
    """The channel to the process that forks; it ends when this process does.

    :param n_threads: torch's threads, which are counted when it is imported; None tells it nothing.
    """
    ours, theirs = socket.socketpair()
    inherited = theirs.fileno()
    environment = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
    if n_threads is not None:
        environment["OMP_NUM_THREADS"] = n_threads
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKS, str(inherited), *imported],
        pass_fds=[inherited],
        env=environment,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
