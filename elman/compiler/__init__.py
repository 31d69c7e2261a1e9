"""A cell to a graph of operations, and from there, by ``cpu``, to kernels."""
