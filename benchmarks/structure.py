"""How much code one ``rerank()`` runs through, and how the package hangs together.

::

    python -m benchmarks.structure

Prints one JSON object: files and functions of this package that a call of an idle engine enters,
files and lines of the package, its longest file, import circles between its modules, and what the
engine imports of the packages above it. Exits with 1 for a number above its ceiling.
"""

from __future__ import annotations

import ast
import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import bge_rerank_integrations

ROOT = Path(bge_rerank_integrations.__file__).parent
NAME = ROOT.name

# what a newcomer has to read; who needs more takes something out
CEILINGS = {
    "files_of_a_call": 20,
    "engine_files": 42,
    "package_files": 140,
    "package_lines": 18_800,
    "lines_of_the_longest_file": 320,
    "import_circles": 0,
    "engine_imports_from_above": 0,
}
ABOVE_THE_ENGINE = ("cli", "context", "evaluation", "remote", "serving", "tuning")


def way_of_a_call() -> tuple[set[str], set[tuple[str, str]]]:
    """Files and functions that one ``rerank()`` enters, in all threads."""
    files: set[str] = set()
    functions: set[tuple[str, str]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            files.add(str(path.relative_to(ROOT)))
            functions.add((str(path.relative_to(ROOT)), frame.f_code.co_qualname))

    # before the engine's threads start
    threading.settrace(trace)
    with bge_rerank_integrations.RerankEngine("tiny", device="cpu") as engine:
        documents = ["Pandas eat bamboo.", "It rains.", "A panda is a bear."]
        engine.rerank("what do pandas eat?", documents)
        files.clear()
        functions.clear()
        sys.settrace(trace)
        engine.rerank("who is a bear?", documents, top_n=2)
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    return files, functions


def imports_of(path: Path, *, lazy: bool = False) -> set[str]:
    """Modules of the package that a file imports, for type checkers too.

    :param lazy: also those that it imports when a function is called.
    """
    found: set[str] = set()
    package = (NAME, *path.relative_to(ROOT).parent.parts)
    to_see: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while to_see:
        for node in ast.iter_child_nodes(to_see.pop()):
            if isinstance(node, ast.ImportFrom):
                # "from ..checks import plain" counts from the file's package, two levels up
                above = package[: len(package) + 1 - node.level] if node.level else ()
                module = ".".join((*above, *filter(None, [node.module])))
                if module.startswith(NAME):
                    found |= {module, *(f"{module}.{each.name}" for each in node.names)}
            elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                to_see.append(node)
    return found


def circles() -> list[list[str]]:
    """Modules that import each other, directly or through others."""
    modules = {
        ".".join((NAME, *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
    }
    graph = {module: imports_of(path) & modules.keys() for module, path in modules.items()}

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        to_see = list(graph[start])
        while to_see:
            module = to_see.pop()
            if module not in seen:
                seen.add(module)
                to_see += graph[module]
        return seen

    reached = {module: reachable(module) for module in graph}
    inside = {module for module in graph if module in reached[module]}
    return sorted(
        {tuple(sorted(m for m in inside if m in reached[o] and o in reached[m])) for o in inside}
    )  # type: ignore[return-value]


def engine_imports_from_above() -> list[str]:
    """What the engine imports of the packages that are built on it."""
    above = tuple(f"{NAME}.{each}" for each in ABOVE_THE_ENGINE)
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sorted((ROOT / "engine").rglob("*.py"))
        for module in sorted(imports_of(path, lazy=True))
        if module.startswith(above)
    ]


def measure() -> dict[str, Any]:
    """Every figure, and what is behind it."""
    files, functions = way_of_a_call()
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*.py")
    }
    in_engine = [name for name in lines if name.startswith("engine")]
    longest = max(lines, key=lambda name: lines[name])
    return {
        "files_of_a_call": len(files),
        "functions_of_a_call": len(functions),
        "engine_files": len([name for name in in_engine if lines[name] > 1]),
        "engine_lines": sum(lines[name] for name in in_engine),
        "package_files": len(lines),
        "package_lines": sum(lines.values()),
        "lines_of_the_longest_file": lines[longest],
        "longest_file": longest,
        "import_circles": circles(),
        "engine_imports_from_above": engine_imports_from_above(),
        "way": sorted(files),
    }


def above_ceilings(measured: dict[str, Any]) -> dict[str, Any]:
    """The figures that are above their ceilings, and what is behind them."""
    return {
        name: measured[name]
        for name, most in CEILINGS.items()
        if (len(measured[name]) if isinstance(measured[name], list) else measured[name]) > most
    }


def main() -> None:
    """Measure and print."""
    measured = measure()
    print(json.dumps(measured, indent=1))
    if above := above_ceilings(measured):
        sys.exit(f"above the ceilings {CEILINGS}: {above}")


if __name__ == "__main__":
    main()
