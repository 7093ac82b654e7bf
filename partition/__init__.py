if __name__ != "sparsecomm.partition":  # the folder is real at the root; its one import name is this
    raise ImportError("import this package as sparsecomm.partition, not as " + __name__)
