"""sparsecomm: a sparse communication runtime.

Names are loaded on first use, so that `import sparsecomm` costs nothing: neither MPI nor a GPU library is
touched before something that needs it is called.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Dispatch": "sparsecomm.collectives.dispatch",
    "DistMatrix": "sparsecomm.apps.matrix",
    "Exchange": "sparsecomm.collectives.exchange",
    "Layout": "sparsecomm.layout",
    "Plan": "sparsecomm.plan",
    "Profile": "sparsecomm.collectives.profile",
    "Product": "sparsecomm.plan",
    "Topology": "sparsecomm.topology",
    "make_product": "sparsecomm.collectives.strategies",
    "partition_rows": "sparsecomm.partition.registry",
    "read_matrix": "sparsecomm.io.matrix",
    "spmm": "sparsecomm.apps.spmm",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'sparsecomm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
