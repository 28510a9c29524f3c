"""A gallery of topologies: one call each.

python examples/gallery.py [topologies.png]
"""

import sys

import topologies
from lmn_graph.report.topology import draw_gallery

GRAPHS = {
    "grid(5, 3)": topologies.grid(5, 3, metric="manhattan"),
    "triangular(7, 7)": topologies.triangular(7, 7),
    "hexagonal(5, 5)": topologies.hexagonal(5, 5),
    "ring(24, radius=2)": topologies.ring(24, radius=2),
    "raster(8, 6)": topologies.raster(8, 6),
    "tree(4)": topologies.tree(4),
    "line_to_cube(60, 3)": topologies.line_to_cube(60, 3, metric="manhattan"),
    "columns(3, grid(4, 2))": topologies.columns(3, topologies.grid(4, 2, metric="manhattan", boundary="open")),
    "small_world(60, p=0.05)": topologies.small_world(60, p=0.05),
    "scale_free(120)": topologies.scale_free(120),
    "erdos_renyi(80, 0.04)": topologies.erdos_renyi(80, 0.04),
    "random_regular(60, 3)": topologies.random_regular(60, 3),
    "geometric(150, 0.13)": topologies.geometric(150, 0.13),
    "delaunay(90)": topologies.delaunay(90),
    "liquid()": topologies.liquid(),
    "complete(16)": topologies.complete(16),
}

picture = sys.argv[1] if len(sys.argv) > 1 else "topologies.png"
draw_gallery(picture, GRAPHS)
print(f"{len(GRAPHS)} topologies in {picture}")
