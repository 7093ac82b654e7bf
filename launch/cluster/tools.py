"""The programs of the system that a cluster is made with: whether they are there, and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sparsecomm.errors import LaunchError

_TOOLS: Final = ("ip", "tc", "unshare", "hostname", "mount", "sh")
_SLURM_TOOLS: Final = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "sinfo", "scontrol", "scancel")
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21  # bit numbers, linux/capability.h
_TIMEOUT_S: Final = 30.0

_INSTALL: Final = """\
#!/bin/sh
# Install what `sparsecomm cluster` needs, Slurm included, on Debian or Ubuntu. Run as root. No daemon is started, and
# where everything is there already nothing is done.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=
for program in {programs}; do
    command -v "$program" > /dev/null || missing="$missing $program"
done
[ "$missing" ] || exit 0
echo "not installed here:$missing"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get update
apt-get install -y --no-install-recommends \\
    hostname iproute2 mount util-linux munge slurm-client slurmctld slurmd
"""

_ROOT_NEEDED: Final = """\
a cluster needs root: namespaces, bridges and rate limits take CAP_NET_ADMIN and CAP_SYS_ADMIN. Use sudo, give \
both to the container (--cap-add), or, without root and without Slurm, run all `sparsecomm cluster` commands in one \
shell started by:
  SPARSECOMM_CLUSTER_STATE=$HOME/.sparsecomm-cluster unshare --map-root-user --net --mount \
sh -c 'mount -t tmpfs none /run && exec "$SHELL"'"""


def tool_path() -> str:
    """Return PATH with the folders of system programs, which it lacks for most users."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def check_machine(*, slurm: bool) -> None:
    """Refuse to begin without the rights or the programs that will be needed.

    Raises:
        LaunchError: with what is missing and how to get it.
    """
    if not is_privileged():
        raise LaunchError(_ROOT_NEEDED)
    missing = missing_tools(slurm=slurm)
    if missing:
        raise LaunchError(
            f"not installed here: {', '.join(missing)}; on Debian or Ubuntu: sparsecomm cluster packages | sudo sh"
        )


def is_privileged() -> bool:
    """Say whether this process may make network namespaces and mount."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return all(effective >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))


def missing_tools(*, slurm: bool) -> list[str]:
    """Return the programs that a cluster needs and that are not installed."""
    wanted = _TOOLS + _SLURM_TOOLS if slurm else _TOOLS
    return [name for name in wanted if shutil.which(name, path=tool_path()) is None]


def install_script() -> str:
    """Return a script that installs all programs that a cluster needs."""
    return _INSTALL.format(programs=" ".join(_TOOLS + _SLURM_TOOLS))


def run_tool(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program to its end, out of reach of a Ctrl-C, and return what it printed.

    Raises:
        LaunchError: it failed; with the command and its last words.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {}), "PATH": tool_path()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise LaunchError(f"`{' '.join(command)}` failed: {err}") from err
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise LaunchError(f"`{' '.join(command)}` failed: {said}")
    return done.stdout
