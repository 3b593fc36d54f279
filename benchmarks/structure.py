"""How much code one ``rerank()`` runs through, and how the package hangs together.

::

    python -m benchmarks.structure

Prints one JSON object: files and functions of this package that a call of an idle engine enters,
files and lines of the package, its longest file, and import circles between its modules.
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


def imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported itself."""
    found: set[str] = set()
    to_see: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while to_see:
        for node in ast.iter_child_nodes(to_see.pop()):
            is_lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME):
                module = str(node.module)
                found |= {module, *(f"{module}.{each.name}" for each in node.names)}
            elif not is_lazy and not is_for_types:
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


def main() -> None:
    """Measure and print."""
    files, functions = way_of_a_call()
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*.py")
    }
    in_engine = [name for name in lines if name.startswith("engine")]
    longest = max(lines, key=lambda name: lines[name])
    print(
        json.dumps(
            {
                "files_of_a_call": len(files),
                "functions_of_a_call": len(functions),
                "engine_files": len([name for name in in_engine if lines[name] > 1]),
                "engine_lines": sum(lines[name] for name in in_engine),
                "package_files": len(lines),
                "package_lines": sum(lines.values()),
                "longest_file": {longest: lines[longest]},
                "import_circles": circles(),
                "way": sorted(files),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
