"""Graphs as PyTorch Geometric ``Data``: lattices and any other graph that a rule can run on."""
