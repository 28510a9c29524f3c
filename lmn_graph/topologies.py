"""``lmn_graph.topologies`` is the package ``topologies``."""

import sys

import topologies

sys.modules[__name__] = topologies
