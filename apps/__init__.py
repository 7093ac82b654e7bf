if __name__ != "sparsecomm.apps":  # the folder is real at the root; its one import name is this
    raise ImportError("import this package as sparsecomm.apps, not as " + __name__)
