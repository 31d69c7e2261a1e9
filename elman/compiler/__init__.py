"""A cell to a graph of operations, and from there, by a target such as ``cpu``, to kernels."""
