"""``lmn_graph.topologies`` is the package ``topologies``."""

import sys

import topologies
import topologies.nulls

sys.modules[__name__] = topologies
sys.modules[f"{__name__}.nulls"] = topologies.nulls  # imported by this path it would be loaded, and its transforms registered, twice
