"""Threads that compute: how many they may be, and what becomes of them when the process forks.

A forked child has one thread. What other threads held stays held, and native pools of threads are
gone: the first parallel loop of torch would wait for them forever. So everything that computes runs
in threads that an engine starts, for OpenMP's pool belongs to the thread that uses it; and a fork
waits until none of them is in native code. A GPU's context does not survive a fork.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from ..errors import ForkedProcessError

T = TypeVar("T")

# how long a fork waits for what computes; loading a large model takes longer
_FORK_TIMEOUT_S = 10.0
_JOIN_TIMEOUT_S = 10.0
# elements from which torch shares a loop among its threads
_PARALLEL_FROM = 1 << 20
_THREAD_PREFIX = "bge-rerank-"
# variables by which a user says how many threads torch has
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_CURE = (
    'start processes with multiprocessing.get_context("spawn"), celery with --pool=threads, '
    "gunicorn without --preload; or ask one server from all processes, by RemoteReranker"
)


class _Gate:
    """Held by threads while they compute; closed while the process forks."""

    def __init__(self) -> None:
        # reentrant: a signal's handler may fork
        self._changed = threading.Condition(threading.RLock())
        self._inside: set[int] = set()
        self._is_closed = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._inside.add(threading.get_ident())

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until no other thread is inside, as long as that may take, and let none in."""
        self._changed.acquire()
        self._is_closed = True
        self._changed.wait_for(self._is_empty, _FORK_TIMEOUT_S)

    def open(self) -> None:
        """Let threads in again."""
        self._is_closed = False
        self._changed.notify_all()
        self._changed.release()

    def renew(self) -> bool:
        """Open in a forked child; return whether no other thread was inside."""
        was_empty = self._is_empty()
        self._changed = threading.Condition(threading.RLock())
        self._inside &= {threading.get_ident()}
        self._is_closed = False
        return was_empty

    def _is_empty(self) -> bool:
        return self._inside <= {threading.get_ident()}


gate = _Gate()
_pid = os.getpid()
_was_interrupted = False


def _after_fork() -> None:
    global _pid, _was_interrupted
    _pid = os.getpid()
    _was_interrupted = not gate.renew() or _was_interrupted
    if os.environ.get("TOKENIZERS_PARALLELISM"):
        # tokenizers leaves its pool, whose threads are gone, by itself unless this was set
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=gate.close, after_in_parent=gate.open, after_in_child=_after_fork)


def check_fork(devices: Iterable[torch.device], *, is_inherited: bool = False) -> None:
    """Refuse to compute where it might hang.

    :param devices: where to compute.
    :param is_inherited: whether the weights were loaded before the process forked.
    :raises ForkedProcessError: in a child that was forked while another thread computed, or without
        Python's knowledge, and on a GPU that was in use before the fork.
    """
    if _was_interrupted or _pid != os.getpid():
        raise ForkedProcessError(
            f"this process was forked while a model was loading or scoring, and may hang: {_CURE}"
        )
    for device in devices:
        backend = getattr(torch, device.type, None)
        is_lost = getattr(backend, "_is_in_bad_fork", lambda: False)()
        if is_lost or (is_inherited and device.type != "cpu"):
            raise ForkedProcessError(
                f"{device} was in use before the process forked and cannot be used here: {_CURE}"
            )


def start_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start one of the engines' threads."""
    # daemon: an engine that nobody closed must not keep the interpreter from ending
    thread = threading.Thread(target=run, name=f"{_THREAD_PREFIX}{name}", daemon=True)
    thread.start()
    return thread


def join_threads() -> None:
    """Wait for the engines' threads to end; ending the interpreter would kill them anywhere."""
    end = time.monotonic() + _JOIN_TIMEOUT_S
    for thread in threading.enumerate():
        if thread.name.startswith(_THREAD_PREFIX):
            thread.join(max(end - time.monotonic(), 0))


def in_new_thread(compute: Callable[[], T]) -> T:
    """What a function returns or raises, run in a thread of its own, which may use all cores."""
    results: list[T] = []
    errors: list[BaseException] = []
    context = copy_context()

    def run() -> None:
        try:
            with gate:
                results.append(context.run(compute))
        except BaseException as error:
            errors.append(error)

    start_thread("loading", run).join()
    if errors:
        raise errors.pop()
    return results.pop()


@cache
def limit_threads() -> None:
    """Give torch no more threads than the process may run at a time, unless the user said how many.

    torch counts the machine's cores. In a container with a quota, or with fewer cores, more threads
    wait for each other.
    """
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    allowed = min(usable, cpu_quota() or usable)
    # one a core or one a hardware thread, of the machine or of the usable ones
    by_default = {cores, cores // 2, usable, usable // 2}
    threads = torch.get_num_threads()
    is_chosen = threads not in by_default or any(map(os.environ.get, _THREAD_VARIABLES))
    if threads > allowed and not is_chosen:
        torch.set_num_threads(allowed)


@cache
def keep_spare_team() -> None:
    """Let a thread hold a second OpenMP team for the life of the process.

    At the end of each parallel loop libgomp's threads spin for milliseconds before they sleep,
    which takes the cores from the other processes of a busy machine, and from the thread that all
    wait for. With more threads than cores it spins briefly, and one idle team makes them more.
    """

    def hold() -> None:
        torch.zeros(_PARALLEL_FROM).add_(1)
        threading.Event().wait()

    if torch.get_num_threads() > 1:
        threading.Thread(target=hold, name="spare-openmp-team", daemon=True).start()


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Whole CPUs, at least 1, that the process's control groups grant; None if they set no limit.

    :param root: where ``proc`` and ``sys/fs/cgroup`` are.
    """
    quotas = []
    for line in filter(None, _lines(root / "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        mounted = root / "sys/fs/cgroup"
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            mounted /= "cpu" if (mounted / "cpu").is_dir() else controllers
        group = mounted / path.lstrip("/")
        # in a container, the path may be that of the host: then the mounted group is the process's
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mounted):
                break
            # version 2, then version 1
            words = " ".join(_lines(folder / "cpu.max")).split() or [
                *_lines(folder / "cpu.cfs_quota_us"),
                *_lines(folder / "cpu.cfs_period_us"),
            ]
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                quotas.append(int(words[0]) / int(words[1]))
    return max(int(min(quotas)), 1) if quotas else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
