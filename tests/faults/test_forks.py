"""Processes that fork, with a real model and two threads: the child works, and never hangs."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import processes
import pytest
from processes import WITH_LIBRARIES

from bge_rerank_integrations.engine.threads import cpu_quota

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

ROOT = Path(__file__).parents[2]
# a child that hangs never answers; on a busy machine the import of torch alone may take a minute
PATIENCE_S = 200

PRELUDE = """
import concurrent.futures, multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import torch
from bge_rerank_integrations import *
from bge_rerank_integrations.langchain import BGERerank
from langchain_core.documents import Document

DOCUMENTS = ["bread", "a ship floats"]
GIVEN = [Document(page_content=text) for text in DOCUMENTS]

def best(component):
    return component.compress_documents(GIVEN, "ship")[0].page_content

def best_anew(_):
    return best(BGERerank("tiny", top_n=1))

def multiply():
    # enough for torch to make its pool of threads
    matrix = torch.randn(800, 800)
    return (matrix @ matrix).exp().sum()

def in_child(answer):
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, answer().encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as told:
        print(told.read(), flush=True)
    os.waitpid(child, 0)
"""


def run(program: str, n_threads: str | None = "2", **variables: str) -> list[str]:
    """What a program prints.

    :param n_threads: threads that torch is told to use; None tells it nothing.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    del environment["OMP_NUM_THREADS"]
    if n_threads is not None:
        environment["OMP_NUM_THREADS"] = n_threads
    done = processes.run(
        PRELUDE + textwrap.dedent(program),
        environment=environment,
        imported=WITH_LIBRARIES,
        timeout_s=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "parent",
    [
        "multiply()",
        "component = BGERerank('tiny', top_n=1)",
        "component = BGERerank('tiny', top_n=1); best(component); multiply()",
        "component = BGERerank('tiny', top_n=1); best(component); RerankEngine.close_all()",
    ],
    ids=["multiplied", "loaded", "used", "closed"],
)
def test_a_component_made_in_the_child_works(parent: str) -> None:
    assert run(f"{parent}\nin_child(lambda: best_anew(0))") == ["a ship floats"]


def test_a_component_of_the_parent_works_in_the_child_and_the_parent() -> None:
    program = """
    component = BGERerank("tiny", top_n=1)
    best(component)
    in_child(lambda: best(component))
    # a child of a child
    in_child(lambda: (in_child(lambda: best(component)), best(component))[1])
    print(best(component))
    # and with the threads that it has
    in_child(lambda: (best(component), str(torch.get_num_threads()))[1])
    """
    assert run(program) == ["a ship floats"] * 4 + ["2"]


def test_forks_while_the_parent_scores() -> None:
    """With a pool of the tokenizer's that the user insists on."""
    program = """
    engine = RerankEngine.shared("tiny", max_cached_tokens=0)
    texts = [f"{number} ship " + "word " * 60 for number in range(16)]
    is_over = False
    def score():
        while not is_over:
            engine.score("ship", texts)
    busy = [threading.Thread(target=score) for _ in range(2)]
    for thread in busy:
        thread.start()
    for _ in range(5):
        in_child(lambda: str(len(engine.rerank("ship", texts))))
    is_over = True
    for thread in busy:
        thread.join()
    """
    assert run(program, TOKENIZERS_PARALLELISM="true") == ["16"] * 5


def test_pools_of_processes() -> None:
    program = """
    component = BGERerank("tiny", top_n=1)
    best(component)
    multiply()
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        print(pool.map(best_anew, range(3)), pool.map(best, [component] * 3))
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
        print(list(pool.map(best_anew, range(3))), list(pool.map(best, [component] * 3)))
    class Found(torch.utils.data.Dataset):
        def __len__(self): return 2
        def __getitem__(self, index): return best(component)
    loader = torch.utils.data.DataLoader(Found(), num_workers=2, multiprocessing_context="fork")
    print(list(loader))
    """
    three = ["a ship floats"] * 3
    assert run(program) == [f"{three} {three}"] * 2 + [str([["a ship floats"]] * 2)]


def test_a_gpu_in_use_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's state is a fake: it answers as after a fork of a process that used it."""
    program = """
    from bge_rerank_integrations.engine.threads import check_fork
    def refused():
        torch.cuda._is_in_bad_fork = lambda: True
        try:
            check_fork([torch.device("cuda", 0)])
        except ForkedProcessError as error:
            return str(error)
    in_child(refused)
    """
    (message,) = run(program)
    assert message.startswith("cuda:0 was in use before the process forked")
    assert 'start processes with multiprocessing.get_context("spawn")' in message


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "400000 100000", "pod/cpu.max": "300000 100000", "pod/x/cpu.max": "max 1"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/pod/x/cpu.cfs_quota_us": "400000", "cpu/pod/x/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, files: dict[str, str], quota: int | None) -> None:
    groups = "4:cpuset:/\n3:cpu,cpuacct:/pod/x\n0::/pod/x\n"
    limits = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("before", "n_threads", "threads"),
    [("", None, "1"), ("", "2", "2"), ("torch.set_num_threads(5)", None, "5")],
    ids=["neither", "variable", "call"],
)
def test_threads_are_those_that_the_process_may_run(
    before: str, n_threads: str | None, threads: str
) -> None:
    """One processor is allowed here; what the user asked for counts."""
    program = f"""
    from bge_rerank_integrations.engine import threads
    threads.cpu_quota = lambda: 1
    {before}
    engine = RerankEngine("tiny")
    told = []
    # as in the engine's own threads
    asked = threading.Thread(target=lambda: told.append(torch.get_num_threads()))
    asked.start()
    asked.join()
    print(told[0])
    """
    assert run(program, n_threads) == [threads]


def test_all_models_of_a_process_can_be_freed() -> None:
    program = """
    engines = [RerankEngine.shared("tiny", max_batch_tokens=size) for size in (71, 72)]
    sizes = lambda engine: sorted(each.max_batch_tokens for each in engine.stats().loaded_models)
    print(sizes(engines[0]))
    RerankEngine.close_all()
    print([engine.is_alive for engine in engines], sizes(engines[0]))
    print(sizes(RerankEngine.shared("tiny", max_batch_tokens=71)))
    """
    assert run(program) == ["[71, 72]", "[False, False] []", "[71]"]


def test_the_interpreter_ends_right_after_an_engine_was_let_go() -> None:
    assert run('RerankEngine("tiny")\nprint("over")') == ["over"]


def test_two_engines_share_one_spare_team_of_threads() -> None:
    names = run("""
        for device in ("cpu", ["cpu", "cpu"]):
            RerankEngine("tiny", device=device).rerank("ship", DOCUMENTS)
        print([each.name for each in threading.enumerate()].count("spare-openmp-team"))
        """)
    assert names == ["1"]
