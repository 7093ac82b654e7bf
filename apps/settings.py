"""Changes to a machine or a plan that `--set` asks for, such as `network.bandwidth=2x`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sparsecomm.errors import InputError
from sparsecomm.topology import Device, Level, Topology

_OF_LEVEL: Final = {"latency": "latency_s", "bandwidth": "bandwidth_Bps", "ports": "ports"}
_OF_DEVICE: Final = {"memory": "memory_Bps", "launch": "launch_s", "host": "host_Bps"}
_OF_PLAN: Final = ("width", "depth")


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that is changed, and the values it takes in turn.

    Args:
        key: `LEVEL.latency`, `LEVEL.bandwidth`, `LEVEL.ports`, `device.memory`, `device.launch`, `device.host`,
            `width` or `depth`.
        values: each a number, or a number and `x`, which multiplies.
    """

    key: str
    values: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Setting:
        """Read `KEY=VALUE[,VALUE...]`.

        Raises:
            InputError: it has another form.
        """
        key, equals, values = text.partition("=")
        if not equals or not key or not all(values.split(",")):
            raise InputError(f"setting {text!r} is not KEY=VALUE[,VALUE...], such as network.bandwidth=1x,2x")
        return Setting(key, tuple(values.split(",")))

    @property
    def of_plan(self) -> bool:
        """Whether it changes what is planned for and not the machine."""
        return self.key in _OF_PLAN

    def numbers(self) -> list[int]:
        """Return the values of a setting of the plan.

        Raises:
            InputError: a value is not a whole number of at least 1.
        """
        return [_whole(self.key, value) for value in self.values]


def changed(topology: Topology, key: str, value: str) -> Topology:
    """Return a topology in which one figure is another.

    A bandwidth that is multiplied takes `direct_Bps` with it: the whole port becomes faster.

    Raises:
        InputError: there is no such figure, or the value cannot be.
    """
    owner, _, name = key.rpartition(".")
    if owner == "device" and name in _OF_DEVICE:
        device: dict[str, Any] = asdict(topology.device)
        device[_OF_DEVICE[name]] = _number(key, value, device[_OF_DEVICE[name]])
        return replace(topology, device=Device(**device))
    if owner not in topology.level_names or name not in _OF_LEVEL:
        levels = [f"{level}.{name}" for level in topology.level_names for name in _OF_LEVEL]
        known = [*levels, *(f"device.{name}" for name in _OF_DEVICE), *_OF_PLAN]
        raise InputError(f"topology {topology.name} has no {key!r} to set; give one of {', '.join(known)}")
    number = topology.level_names.index(owner)
    figures: dict[str, Any] = asdict(topology.levels[number])
    figure = _number(key, value, figures[_OF_LEVEL[name]])
    figures[_OF_LEVEL[name]] = _whole(key, f"{figure:g}") if name == "ports" else figure
    if name == "bandwidth" and value.endswith("x"):
        figures["direct_Bps"] = _number(key, value, figures["direct_Bps"])
    changed_levels = (*topology.levels[:number], Level(**figures), *topology.levels[number + 1 :])
    return replace(topology, levels=changed_levels)


def _number(key: str, text: str, old: float) -> float:
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{key}={text}: {text!r} is not a number; give one, or one with x that multiplies, such as 2x")
    return value * old if text.endswith("x") else value


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{key}={text}: {text!r} is not a whole number of at least 1")
    return int(text)
