"""The package stays as narrow as its ceilings say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from paths import ROOT

structure = pytest.importorskip("benchmarks.structure", reason="they are not in the sdist")


@pytest.mark.xfail(reason="files are being merged", strict=False)
def test_the_package_is_below_its_ceilings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.structure"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_figure_above_its_ceiling_is_named() -> None:
    measured = {name: [] if most == 0 else most for name, most in structure.CEILINGS.items()}
    assert structure.above_ceilings(measured) == {}
    measured["package_files"] += 1
    measured["import_circles"] = [("a", "b")]
    assert structure.above_ceilings(measured) == {
        "package_files": structure.CEILINGS["package_files"] + 1,
        "import_circles": [("a", "b")],
    }
