"""The page docs/doctor.md: its findings and headings are those that the program has; docs/launch.md's Python runs."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from sparsecomm.launch.doctor.page import make_sections
from tests.doctor_cases import alone
from tests.jobs import ROOT

PAGE = (ROOT / "docs" / "doctor.md").read_text()
TRANSCRIPTS = dict(re.findall(r"<!-- transcript (\S+) -->\n```text\n(.*?)```\n<!-- end \1 -->", PAGE, re.DOTALL))
RENEW = runpy.run_path(str(ROOT / "docs" / "renew_doctor.py"))


def names_in_code() -> set[str]:
    """Return the first argument of every Finding that a check makes."""
    calls = [
        node
        for file in (ROOT / "launch" / "doctor").glob("check_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
    ]
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}  # type: ignore[misc]


def test_every_finding_is_explained() -> None:
    table = PAGE.partition("## All findings")[2]
    rows = re.findall(r"^\| ([^|]+) \| (?:error|warning|note)", table, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == names_in_code()


@pytest.mark.parametrize("name", ["plain", "mpiexec", "foreign", "srun", "srun-none"])
def test_transcripts_have_the_headings_and_findings_of_the_program(name: str) -> None:
    lines = TRANSCRIPTS[name].splitlines()
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert headings == [*(heading for heading, _ in make_sections(alone())), "findings"]
    found = re.findall(r"^  (?:error|warning|note): +([^:]+):", TRANSCRIPTS[name], re.MULTILINE)
    assert set(found) <= names_in_code()


def test_transcripts_name_no_folder_of_a_machine() -> None:
    assert not re.findall(r"/(?:tmp|work|root)/", PAGE)
    assert RENEW["make_neutral"](f"{RENEW['FIRST']}/mpiexec\r\n") == "/home/you/mpich/bin/mpiexec\n"


def test_a_transcript_is_replaced_and_a_missing_place_is_said() -> None:
    replace = RENEW["replace_transcript"]
    assert TRANSCRIPTS["plain"] not in replace(PAGE, "plain", "new")
    assert replace(PAGE, "plain", TRANSCRIPTS["plain"]) == PAGE
    with pytest.raises(SystemExit, match="no place for the transcript 'other'"):
        replace(PAGE, "other", "new")


def test_python_of_the_launch_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "launch.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert run.returncode == 0, run.stderr
        assert re.search(r"^sparsecomm: .* rank; rank 0 has", run.stderr, re.MULTILINE), run.stderr
