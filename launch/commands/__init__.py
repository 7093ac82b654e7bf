"""The commands of `sparsecomm`: each file has `add_parser` and `run`."""
