"""Datasets by name and the user's own files: three splits of tensors and the encoder fitted on the first."""

from __future__ import annotations

from ._arrays import arrays
from ._columns import Column, TableEncoder
from ._digits import digits
from ._folder import folder
from ._loading import load, resolve
from ._mnist import fashion_mnist, mnist
from ._npz import ArrayEncoder
from ._pictures import PictureEncoder
from ._synthetic import synthetic_pictures
from ._table import table
from ._target import Target
from .base import DATASETS, ENCODERS, Encoder, Inputs, Split, Splits

__all__ = [
    "DATASETS",
    "ENCODERS",
    "ArrayEncoder",
    "Column",
    "Encoder",
    "Inputs",
    "PictureEncoder",
    "Split",
    "Splits",
    "TableEncoder",
    "Target",
    "arrays",
    "digits",
    "fashion_mnist",
    "folder",
    "load",
    "mnist",
    "resolve",
    "synthetic_pictures",
    "table",
]
