if __name__ != "sparsecomm.collectives":  # the folder is real at the root; its one import name is this
    raise ImportError("import this package as sparsecomm.collectives, not as " + __name__)
