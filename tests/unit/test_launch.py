"""`sparsecomm launch`: its text is as committed under tests/golden/launch, and every value arrives as it was given.

After a wanted change write the files anew with SPARSECOMM_WRITE_GOLDEN=1, and read what `git diff` says.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsecomm.errors import InputError
from sparsecomm.launch.cli import main
from sparsecomm.launch.job.commands import launch_command
from sparsecomm.launch.job.make import Asked, make_spec
from sparsecomm.launch.job.quoting import join_words, parse_variable
from sparsecomm.launch.job.script import job_script
from sparsecomm.launch.job.sites import SITES
from sparsecomm.launch.job.spec import clock, parse_time
from tests.jobs import BIN, ROOT, run

GOLDEN = ROOT / "tests" / "golden" / "launch"
PRESETS = ("summit", "frontier", "perlmutter", "slurm", "mpirun")
SIZES = (1, 8, 1000)
COMMAND = ("sparsecomm", "spmm", "matrix.mtx", "--check")
LAUNCHERS = ("srun", "jsrun", "flux", "mpiexec", "mpirun")
# Beside characters at random, those that shells and schedulers give a meaning to.
NASTY = (
    "a;b",
    "$(touch hit)",
    "`touch hit`",
    "'",
    '"',
    "a b",
    "$HOME",
    "*",
    "~",
    "\\",
    "&& x",
    "#BSUB -q x",
    "!!",
    "é",
)
VALUES = st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
# In the place of a launcher: it leaves the variable VALUE and its own words in a file.
FAKE = """#!/bin/sh
printf '%s\\0' "${VALUE-not set}" "$@" > "$SEEN"
"""
# Line breaks of any kind and other characters that steer a terminal: a script cannot hold them.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.mark.parametrize("num_nodes", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_command_is_golden(preset: str, num_nodes: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", preset, "-N", str(num_nodes), "--", *COMMAND]) == 0
    check_golden(f"{preset}-{num_nodes}.txt", capsys.readouterr().out)


@pytest.mark.parametrize("num_nodes", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_script_is_golden(preset: str, num_nodes: int, capsys: pytest.CaptureFixture[str]) -> None:
    options = [] if preset == "mpirun" else ["--time", "30", "--account", "abc123", "--name", "product"]
    assert main(["launch", preset, "-N", str(num_nodes), *options, "-o", "-", "--", *COMMAND]) == 0
    check_golden(f"{preset}-{num_nodes}.sh", capsys.readouterr().out)


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("SPARSECOMM_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_golden_files_are_those_of_the_tests() -> None:
    wanted = {f"{preset}-{size}.{end}" for preset in PRESETS for size in SIZES for end in ("txt", "sh")}
    assert {path.name for path in GOLDEN.iterdir()} == wanted


@pytest.mark.parametrize("preset", SITES)
def test_scripts_are_shell(preset: str) -> None:
    text = job_script(make_spec(Asked(preset=preset, num_nodes=3, command=COMMAND, modules=["a/1"], venv="/v e")))
    check = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=200)
    assert (check.returncode, check.stderr) == (0, "")


class Fakes:
    """Launchers on a path of their own, which say how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = folder / "seen"
        for name in LAUNCHERS:
            (folder / name).write_text(FAKE)
            (folder / name).chmod(0o755)

    def run(self, text: str) -> tuple[str, list[str]]:
        """Have bash read a text that starts a launcher; return what that sees."""
        self.seen.unlink(missing_ok=True)
        environ = {"PATH": f"{self.folder}:/usr/bin:/bin", "SEEN": str(self.seen), "PBS_O_WORKDIR": str(self.folder)}
        command = ["bash", "-s"] if text.startswith("#!") else ["bash", "-c", text]
        done = subprocess.run(
            command, input=text, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        assert {path.name for path in self.folder.iterdir()} == {*LAUNCHERS, "seen"}
        return self.read()

    def read(self) -> tuple[str, list[str]]:
        """Return the variable VALUE and the words with which the last launcher was called."""
        value, *words = self.seen.read_bytes().decode().split("\0")[:-1]
        return value, words


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Fakes:
    return Fakes(tmp_path_factory.mktemp("fakes"))


def asked(preset: str, value: str) -> Asked:
    return Asked(
        preset=preset,
        num_nodes=2,
        command=["prog", value, "last"],
        environment={"VALUE": value},
        options=[f"--option={value}"],
    )


def check_arrived(seen: tuple[str, list[str]], value: str) -> None:
    variable, words = seen
    assert words[-4:] == [f"--option={value}", "prog", value, "last"]
    options = words[:-4]  # of launchers that pass variables on: -genv NAME VALUE, -x NAME=VALUE, --env NAME=VALUE
    passed = f"VALUE={value}" in options or ["-genv", "VALUE", value] in [
        options[i : i + 3] for i in range(len(options))
    ]
    assert variable == value or passed


@settings(max_examples=60)
@given(preset=st.sampled_from(sorted(SITES)), value=VALUES)
@example(preset="mpirun", value="two\nlines")
@example(preset="summit", value="#BSUB -q x\n#BSUB -q y")
def test_values_arrive_by_command(preset: str, value: str, fakes: Fakes) -> None:
    words = launch_command(make_spec(asked(preset, value)), in_script=False)
    check_arrived(fakes.run(join_words(word for group in words for word in group)), value)


@settings(max_examples=60)
@given(preset=st.sampled_from(sorted(SITES)), value=VALUES)
@example(preset="mpirun", value="two\nlines")
@example(preset="summit", value="#BSUB -q x")
def test_values_arrive_by_script_or_are_refused(preset: str, value: str, fakes: Fakes) -> None:
    spec = make_spec(asked(preset, value))
    if CONTROL.search(value):
        with pytest.raises(InputError, match="control character"):
            job_script(spec)
        return
    text = job_script(spec)
    assert text.count("\n") == job_script(make_spec(asked(preset, "x"))).count("\n")
    check_arrived(fakes.run(text), value)


@settings(max_examples=100)
@given(option=st.sampled_from(["name", "account", "queue"]), value=VALUES)
def test_directives_hold_plain_values_only(option: str, value: str) -> None:
    plain = bool(value) and all(one.isascii() and (one.isalnum() or one in "_.,:/=+@%&|*[]~-") for one in value)
    for preset in ("slurm", "lsf", "flux", "pbs"):
        spec = make_spec(Asked(preset=preset, num_nodes=2, command=["prog"], **{option: value}))
        if plain:
            head = job_script(spec).partition("\n\n")[0]
            assert all(line.startswith("#") for line in head.splitlines())
            assert value in head
        else:
            with pytest.raises(InputError, match=f"--{option} "):
                job_script(spec)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--env", "1A=x"], "is not NAME=VALUE"),
        (["--env", "A"], "is not NAME=VALUE"),
        (["--env", "A=\udc80"], "is not UTF-8"),
        (["--time", "1:30"], "is not a time"),
        (["--directive", "constraint=gpu"], "must begin with a dash"),
        (["--directive=--x=a;b"], "';'"),
        (["--name", "a\nb"], "'\\n'"),
        (["--nodes", "0"], "--nodes 0 is not between 1 and"),
        (["--module=-x"], "does not begin with a dash"),
        (["--option", ":"], "would begin a second command"),
        (["--launcher", "jsrun"], "jsrun runs in jobs of lsf"),
        (["--hostfile", "h"], "gets its nodes from the scheduler"),
    ],
)
def test_what_is_wrong_is_refused(options: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = ["--scheduler", "slurm"] if "--launcher" in options else []
    argv = ["launch", "slurm", "-N", "1", *options, *scheduler, "-o", "-", "--", "prog"]
    assert main(argv) == 2
    said = capsys.readouterr()
    assert wanted in said.err
    assert said.out == ""


def test_a_script_replaces_only_its_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a job.sh"
    argv = ["launch", "lsf", "-N", "1", "-o", str(path), "--", "prog"]
    assert main(argv) == main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"submit it with: bsub < {shlex.quote(str(path))}")
    assert os.access(path, os.X_OK)
    path.write_text("mine")
    assert main(argv) == 2
    assert path.read_text() == "mine"


def test_run_starts_the_command(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{fakes.folder}:/usr/bin:/bin")
    monkeypatch.setenv("SEEN", str(fakes.seen))
    assert main(["launch", "slurm", "-N", "2", "--run", "--env", "VALUE=$(touch hit)", "--", "prog", "a;b"]) == 0
    variable, words = fakes.read()
    assert (variable, words[-2:]) == ("$(touch hit)", ["prog", "a;b"])


@given(st.integers(1, 9999 * 3600 + 3599))
def test_clock_is_read_back(seconds: int) -> None:
    assert parse_time(clock(seconds)) == seconds


def test_variable_keeps_its_value() -> None:
    assert parse_variable("A=b=c\nd") == ("A", "b=c\nd")


def test_commands_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "launch.md").read_text(), re.DOTALL | re.MULTILINE)
    env = {"PATH": f"{BIN['mpich']}:{os.environ['PATH']}"}
    job = run(["bash", "-ec", "".join(blocks)], timeout=200, env=env, cwd=tmp_path)
    assert job.rc == 0, job
    assert job.stdout.count("verified against scipy") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"perlmutter.sh", "summit.sh", "slurm.sh"}
