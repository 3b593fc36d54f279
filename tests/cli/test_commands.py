"""What the commands have in common."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from paths import GOLDEN
from rich.console import Console
from typer.testing import CliRunner

from bge_rerank_integrations import __version__
from bge_rerank_integrations.catalog import CATALOG
from bge_rerank_integrations.cli import main
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.serving.settings import SERVED_DEFAULTS
from bge_rerank_integrations.settings import SETTINGS, default_of, description_of

XLMR = str(GOLDEN / "xlmr")
MAIN = "from bge_rerank_integrations.cli import main; main()"


def run(*arguments: str, program: str = MAIN) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a shell would."""
    # no terminal, whatever CI says: colours and widths would follow
    hidden = ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment | {"HF_HUB_OFFLINE": "1"},
    )


def test_the_version_needs_no_torch() -> None:
    program = f"""
import sys
try:
    {MAIN}
finally:
    assert "torch" not in sys.modules
"""
    done = run("--version", program=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bge-rerank {__version__}\n", "")


def test_without_a_command_the_help_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown = CliRunner().invoke(app, []).output
    assert 'bge-rerank demo "Why' in shown
    assert re.search("^ *bge-rerank serve --model tiny *$", shown, re.MULTILINE)


@pytest.mark.parametrize("command", ["rerank", "serve"])
def test_help_is_short_and_help_all_has_the_settings_by_groups(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    short = CliRunner().invoke(app, [command, "--help"]).output
    whole = CliRunner().invoke(app, [command, "--help-all"]).output
    assert "--help-all" in short
    for setting, group in {
        "--device": "What is loaded, and where",
        "--max-length": "How a call is scored",
    }.items():
        assert setting not in short
        assert whole.index(group) < whole.index(setting)
    assert "VALUE" not in whole
    for shown in ("truncate|truncate_left|window|refuse", "INTEGER", "SECONDS", "true|false"):
        assert shown in whole
    # a screen
    assert len(short.splitlines()) <= 40
    assert "[env var" not in short
    assert command == "rerank" or "[env var: BGE_RERANK_PORT]" in whole
    # a help that was short before is whole again, and the other way round
    assert CliRunner().invoke(app, [command, "--help"]).output == short


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("bge-rerank re", ["rerank"]),
        ("bge-rerank rerank --score-t", ["--score-threshold"]),
        ("bge-rerank rerank --long", ["--long-documents"]),
        (
            "bge-rerank serve --model mixedbread",
            ["mixedbread-ai/mxbai-rerank-base-v2", "mixedbread-ai/mxbai-rerank-large-v2"],
        ),
    ],
)
def test_a_shell_completes(
    monkeypatch: pytest.MonkeyPatch, typed: str, completed: list[str]
) -> None:
    words = typed.split()
    monkeypatch.setenv("_BGE_RERANK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert CliRunner().invoke(app, prog_name="bge-rerank").output.split() == completed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ")


def test_an_unexpected_error_is_reported_and_its_traceback_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(prog_name: str) -> None:
        raise ZeroDivisionError("by a passage")

    monkeypatch.setattr("bge_rerank_integrations.cli.app.app", fail)
    monkeypatch.setattr("bge_rerank_integrations.cli._keep_libraries_quiet", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^error: ZeroDivisionError: by a passage\n") as stopped:
        main()
    [kept] = tmp_path.iterdir()
    assert str(kept) in str(stopped.value)
    assert "in fail" in kept.read_text("utf-8")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_missing_extra_is_one_line_without_a_traceback(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; {MAIN}"
    done = run("--version", program=program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: the optional dependencies 'cli' are not installed: "
        'pip install "bge-rerank-integrations[cli]"\n'
    )


def test_the_extra_cli_alone_runs_what_needs_no_other() -> None:
    others = (
        "fastapi", "starlette", "uvicorn", "prometheus_client", "pythonjsonlogger", "opentelemetry",
        "tenacity", "pyarrow", "ir_measures", "Stemmer", "matplotlib", "ray", "mteb", "datasets",
        "sentence_transformers", "llama_index", "langchain_core",
    )  # fmt: skip
    program = f"import sys; sys.modules.update(dict.fromkeys({others!r})); {MAIN}"
    models = run("models", program=program)
    assert (models.returncode, models.stderr) == (0, "")
    served = run("serve", program=program)
    assert served.returncode == 1
    assert served.stderr == (
        "error: the optional dependencies 'serve' are not installed: "
        'pip install "bge-rerank-integrations[serve]"\n'
    )


def test_another_missing_module_is_not_blamed_on_the_extra() -> None:
    program = f"import sys; sys.modules['numpy'] = None; {MAIN}"
    assert "ModuleNotFoundError: import of numpy" in run("--version", program=program).stderr


def test_a_model_out_of_reach_is_one_line_that_names_the_built_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the hub's client reads the variable once, when it is imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "a.txt").write_text("one")
    command = ["rerank", "q", str(tmp_path / "a.txt"), "--model", "nobody/nothing"]
    result = CliRunner(env={"HF_HUB_OFFLINE": "1"}).invoke(app, command)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: nobody/nothing is not in the local cache")
    assert "'tiny' is built in" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "others"),
    [
        # others: told by another option, or named by each request
        ("rerank", {"normalize"}),
        ("serve", {"normalize", "timeout_s"}),
    ],
)
def test_every_setting_is_an_option_as_it_is_declared(
    monkeypatch: pytest.MonkeyPatch, command: str, others: set[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    lines = CliRunner().invoke(app, [command, "--help-all"]).output.splitlines()
    options = {found[1]: line for line in lines if (found := re.match(r"\W*--([a-z-]+)", line))}
    for setting in SETTINGS:
        shown = options.get(setting.replace("_", "-"), "")
        assert (description_of(setting) in shown) == (setting not in others)
        if setting not in {"model", *others}:
            default = default_of(setting)
            if command == "serve":
                default = SERVED_DEFAULTS.get(setting, default)
            assert f"[default: ({str(default).lower()})]" in shown


COMMANDS = [["rerank", "q", "a.txt"], ["serve"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_length", "two"),
        ("max_length", "8"),
        ("query_max_length", "0"),
        ("device", "gpu"),
        ("cutoff_layers", "8,"),
        ("compress_ratio", "3"),
        ("long_documents", "summarize"),
        ("local_files_only", "yes"),
        ("instruction", " "),
        ("queue_timeout_s", "-1"),
    ],
)
def test_a_setting_that_cannot_work_is_a_usage_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    setting: str,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one", encoding="utf-8")
    result = CliRunner().invoke(app, [*command, f"--{setting.replace('_', '-')}={value}"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {setting} must be ")
    assert f"{value}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path) -> None:
    passages = tmp_path / "a.txt"
    passages.write_text("\n".join(f"passage {number} {'x' * 8000}" for number in range(50)))
    command = '"$0" -c "$1" rerank q "$2" --model "$3" --max-length 16 | head -n 1'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, MAIN, str(passages), XLMR],
        capture_output=True,
        encoding="utf-8",
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "truncated: 50 passages\n"


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_the_ids_of_models_are_whole_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=columns, force_terminal=True, color_system=None)
    monkeypatch.setattr("bge_rerank_integrations.cli.models.Console", lambda: console)
    assert CliRunner().invoke(app, ["models"]).exit_code == 0
    lines = [line.split()[0] for line in shown.getvalue().splitlines() if line.split()]
    assert {entry.model for entry in CATALOG} <= set(lines)
