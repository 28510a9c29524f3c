"""Projectors: from an input batch to the drive of a graph."""

from lmn_graph.projectors.backbone import Backbone
from lmn_graph.projectors.base import PROJECTORS, Projection, Projector
from lmn_graph.projectors.concatenated_query import ConcatenatedQuery
from lmn_graph.projectors.conv1d import Conv1d
from lmn_graph.projectors.cp_tensor import CPTensor
from lmn_graph.projectors.hypernetwork import Hypernetwork
from lmn_graph.projectors.identity import Identity
from lmn_graph.projectors.linear import Linear
from lmn_graph.projectors.low_rank import LowRank
from lmn_graph.projectors.patchify import Patchify
from lmn_graph.projectors.stream import Stream
from lmn_graph.projectors.token_embedding import SharedEmbedding, TokenEmbedding
from lmn_graph.projectors.vit import ViT
from lmn_graph.projectors.voxel_cnn import VoxelCNN

__all__ = [
    "PROJECTORS",
    "Backbone",
    "CPTensor",
    "ConcatenatedQuery",
    "Conv1d",
    "Hypernetwork",
    "Identity",
    "Linear",
    "LowRank",
    "Patchify",
    "Projection",
    "Projector",
    "SharedEmbedding",
    "Stream",
    "TokenEmbedding",
    "ViT",
    "VoxelCNN",
]
