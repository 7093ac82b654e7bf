"""The proof of a plan by a run of it: every ghost slot must end with its own global row number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsecomm.errors import PlanError
from sparsecomm.plan import RankPlan
from sparsecomm.typing import IntGlobal, IntRank

if TYPE_CHECKING:
    from sparsecomm.collectives.exchange import Exchange


def ghosts_of(proof: Exchange) -> IntGlobal:
    """Return what the ghost slots of an exchange end with when every own slot holds its global row number.

    Args:
        proof: of width 1 and dtype int64.

    Note: Collective over comm.
    """
    plan, sent = proof.plan, sent_slots(proof.plan)
    rows = plan.start + sent.astype(np.int64)

    def passed(values: IntGlobal) -> IntGlobal:
        place = proof.own_buffer()
        place[sent, 0] = values
        ghosts: IntGlobal = proof.forward(place)[:, 0].copy()
        return ghosts

    # Twice: new buffers may hold the right rows from earlier work, but not their complements as well.
    first, second = ~passed(~rows), passed(rows)
    return np.where(first == plan.ghost_rows, second, first)


def sent_slots(plan: RankPlan) -> IntRank:
    """Return the own rows that anybody asks for; the others may be many, and need not be touched."""
    slots = np.concatenate([np.zeros(0, dtype=np.int32), *(stage.send.slots for stage in plan.stages)])
    return np.unique(slots[slots < plan.num_own])


def check_ghosts(plan: RankPlan, found: IntGlobal) -> None:
    """Raise a PlanError unless every ghost slot holds its row."""
    wrong = np.flatnonzero(found != plan.ghost_rows)
    if wrong.size:
        first = wrong[0]
        raise PlanError(
            f"{wrong.size} of {plan.num_ghost} ghost slots end with the wrong row; "
            f"slot {plan.num_own + first} holds row {found[first]}, not {plan.ghost_rows[first]}"
        )
