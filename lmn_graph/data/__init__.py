"""Datasets by name and the user's own files: three splits of tensors and the encoder fitted on the first."""

from __future__ import annotations

from ._arrays import arrays
from ._chunks import import_chunks
from ._columns import Column, TableEncoder
from ._corpora import babylm, tinystories
from ._covertype import covertype
from ._digits import digits
from ._domainnet import domainnet
from ._folder import folder
from ._food101 import food101
from ._helena import helena
from ._higgs import higgs
from ._imagenet import imagenet
from ._kraken import kraken
from ._listing import Listed, Listing, check_reading, listed, read_listing
from ._loading import load, make_specimen, resolve
from ._lorenz import lorenz
from ._mackey_glass import mackey_glass
from ._mnist import fashion_mnist, mnist
from ._npz import ArrayEncoder
from ._pictures import PictureEncoder
from ._preprocess import preprocess
from ._price_windows import BarEncoder
from ._series import SeriesEncoder, series
from ._shards import shards, verify_shards
from ._specimen import specimen
from ._streams import Stream, StreamSplits
from ._synthetic import synthetic_pictures
from ._table import table
from ._target import Target
from ._text import TextEncoder, text
from ._timed_bump import timed_bump
from ._token_files import tokens, write_tokens
from ._year_prediction_msd import year_prediction_msd
from .base import DATASETS, ENCODERS, Encoder, Inputs, MissingData, Rows, Split, Splits

__all__ = [
    "DATASETS",
    "ENCODERS",
    "ArrayEncoder",
    "BarEncoder",
    "Column",
    "Encoder",
    "Inputs",
    "Listed",
    "Listing",
    "MissingData",
    "PictureEncoder",
    "Rows",
    "SeriesEncoder",
    "Split",
    "Splits",
    "Stream",
    "StreamSplits",
    "TableEncoder",
    "Target",
    "TextEncoder",
    "arrays",
    "babylm",
    "check_reading",
    "covertype",
    "digits",
    "domainnet",
    "fashion_mnist",
    "folder",
    "food101",
    "helena",
    "higgs",
    "imagenet",
    "import_chunks",
    "kraken",
    "listed",
    "load",
    "lorenz",
    "mackey_glass",
    "make_specimen",
    "mnist",
    "preprocess",
    "read_listing",
    "resolve",
    "series",
    "shards",
    "specimen",
    "synthetic_pictures",
    "table",
    "text",
    "timed_bump",
    "tinystories",
    "tokens",
    "verify_shards",
    "write_tokens",
    "year_prediction_msd",
]
