"""Lattice Machine Networks on PyTorch Geometric: a graph, a rule and a number of steps."""

__version__ = "0.1.0"
