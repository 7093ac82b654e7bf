"""A cluster on one Linux machine: network namespaces are its nodes, and its links are as slow as one asks."""
