if __name__ != "sparsecomm.launch":  # the folder is real at the root; its one import name is this
    raise ImportError("import this package as sparsecomm.launch, not as " + __name__)

__all__ = ["Job", "init"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'sparsecomm.launch' has no attribute {name!r}")
    from sparsecomm.launch import startup

    return getattr(startup, name)
