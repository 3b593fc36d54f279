from __future__ import annotations

from typer.testing import CliRunner

from bge_rerank_integrations.catalog import CATALOG, HEADERS, languages_of
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.settings import DEFAULT_MODEL, EngineConfig


def test_every_entry_is_a_model_that_can_be_asked_for() -> None:
    names = [entry.model for entry in CATALOG]
    assert DEFAULT_MODEL in names
    assert len(set(names)) == len(names)
    for entry in CATALOG:
        assert EngineConfig(entry.model).model == entry.model
        assert entry.family in {
            "encoder",
            "decoder",
            "bidirectional",
            "layerwise",
            "lightweight",
        }


def test_the_command_lists_every_model() -> None:
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split("\t") == list(HEADERS)
    assert [line.split("\t")[0] for line in lines[1:]] == [entry.model for entry in CATALOG]


def test_languages_are_known_of_the_catalog_s_models_alone() -> None:
    assert languages_of("tiny") == "English"
    assert languages_of("BAAI/bge-reranker-v2-m3") == "100+"
    assert languages_of("/a/folder") is None
