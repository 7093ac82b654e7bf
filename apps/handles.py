"""Numbers that stand for objects in calls of custom operators, which take tensors and plain numbers only."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

_OBJECTS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_NUMBERS: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_COUNT = itertools.count(1)


def handle_of(thing: object) -> int:
    """Return the number of an object, the same one each time; the object is not kept alive by it."""
    number = _NUMBERS.get(thing)
    if number is None:
        number = _NUMBERS.setdefault(thing, next(_COUNT))
        _OBJECTS[number] = thing
    return number


def thing_of(handle: int) -> Any:
    """Return the object of a number.

    Raises:
        RuntimeError: the object is gone.
    """
    thing = _OBJECTS.get(handle)
    if thing is None:
        raise RuntimeError("what this operator works with has been deleted; keep it until the backward pass is done")
    return thing
