"""Two reports side by side: what differs, and whether it may."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sparsecomm.apps.summary import Json
from sparsecomm.errors import InputError

SCHEMA: Final = "sparsecomm.compare/1"
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE: Final = re.compile(r"^\s*([\w.\- ]+?)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)(x?)\s*$")


@dataclass(frozen=True, slots=True)
class Rule:
    """What must not be: `network.bytes > 1.05x` is true where B has more than 1.05 times the bytes of A.

    Args:
        text: as it was given.
        name: of a figure, see `figures`.
        sign: `>`, `>=`, `<` or `<=`.
        bound: a factor of the figure of A, or a figure itself.
        relative: which of the two.
    """

    text: str
    name: str
    sign: str
    bound: float
    relative: bool

    @staticmethod
    def parse(text: str) -> Rule:
        """Read a rule.

        Raises:
            InputError: it is none.
        """
        found = _RULE.match(text)
        try:
            return Rule(text.strip(), found[1], found[2], float(found[3]), bool(found[4])) if found else _refuse(text)
        except ValueError:
            return _refuse(text)

    def broken(self, first: Mapping[str, float], second: Mapping[str, float]) -> bool:
        """Say whether B is as it must not be.

        Raises:
            InputError: one of the two has no such figure.
        """
        for side, figures in (("first", first), ("second", second)):
            if self.name not in figures:
                names = ", ".join(sorted(figures))
                raise InputError(f"the {side} report has no figure {self.name!r}; it has {names}")
        bound = self.bound * first[self.name] if self.relative else self.bound
        return _OPERATORS[self.sign](second[self.name], bound)


def _refuse(text: str) -> Rule:
    raise InputError(
        f"{text!r} is no rule; write NAME > NUMBER, or NUMBERx for times the first, as network.bytes > 1.05x"
    )


def figures(report: Json) -> dict[str, float]:
    """Return the figures of a report by name: `network.bytes`, `time.measured_s`, `bounds.gap`, ..."""
    found: dict[str, float | None] = {}
    for level, entry in report["levels"].items():
        for name in ("rows", "bytes", "messages", "max_rank_bytes", "imbalance", "predicted_s"):
            found[f"{level}.{name}"] = entry[name]
        measured = entry["measured"] or {}
        found |= {f"{level}.measured_{name}": measured.get(name) for name in ("seconds", "bandwidth_Bps")}
    time = report["time"]
    found |= {f"time.{name}": time[name] for name in ("measured_s", "predicted_s")}
    parts = time["parts"] or {}
    found |= {f"time.{name}_s": value for name, value in parts.get("mean_s", {}).items()}
    found |= {"time.exposed_s": parts.get("exposed_s", {}).get("mean"), "time.overlap": parts.get("overlap")}
    found["saved.share"] = (report["saved"] or {}).get("share")
    found["bounds.gap"] = (report["bounds"] or {}).get("gap")
    return {name: float(value) for name, value in found.items() if value is not None}


def compare(first: Json, second: Json, rules: Sequence[Rule] = ()) -> Json:
    """Return the figures of two reports side by side, and the rules that the second breaks.

    Raises:
        InputError: a rule speaks of a figure that one of them has not.
    """
    a, b = figures(first), figures(second)
    return {
        "schema": SCHEMA,
        "first": _head(first),
        "second": _head(second),
        "figures": {
            name: {"first": a.get(name), "second": b.get(name), "ratio": _ratio(a.get(name), b.get(name))}
            for name in [*a, *(name for name in b if name not in a)]
        },
        "broken": [rule.text for rule in rules if rule.broken(a, b)],
    }


def _head(report: Json) -> Json:
    matrix = (report["matrix"] or {}).get("name")
    names = {name: report[name] for name in ("name", "kind", "strategy", "width", "dtype")}
    return names | {"matrix": matrix, "topology": report["topology"]["name"]}


def _ratio(first: float | None, second: float | None) -> float | None:
    return second / first if first and second is not None else None
