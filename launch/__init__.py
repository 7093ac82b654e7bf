if __name__ != "sparsecomm.launch":  # the folder is real at the root; its one import name is this
    raise ImportError("import this package as sparsecomm.launch, not as " + __name__)
