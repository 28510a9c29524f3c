"""Patches: which pixel goes where, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmn_graph.patches import patchify, unpatchify


def test_patches_are_those_of_unfold():
    """torch's own unfold, which orders the numbers of a patch by channel, row, column."""
    pictures = torch.rand(2, 3, 12, 8)
    patches = patchify(pictures, 4)
    assert patches.shape == (2, 3, 2, 3, 4, 4)
    assert torch.equal(patches.reshape(2, 6, 48).transpose(1, 2), torch.nn.functional.unfold(pictures, 4, stride=4))
    assert patches.data_ptr() == pictures.data_ptr()  # a view: nothing is copied


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, 1, 3]))
def test_pictures_come_back(height, width, patch, channels):
    shape = (2, height, width) if channels is None else (2, channels, height, width)
    pictures = torch.randint(0, 256, shape, dtype=torch.uint8)
    patches = patchify(pictures, patch)
    assert patches.dtype == torch.uint8
    back = unpatchify(patches, height, width)
    assert torch.equal(back.squeeze(1) if channels is None else back, pictures)
    assert int(patches.long().sum()) == int(pictures.long().sum())  # the filling is zero


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 1, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="pictures must have shape"):
        patchify(torch.zeros(shape), 2)
    with pytest.raises(ValueError, match="patch must be an integer >= 1"):
        patchify(torch.zeros(1, 4, 4), 0)
    with pytest.raises(ValueError, match="patches must have shape"):
        unpatchify(torch.zeros(shape), 4, 4)
    with pytest.raises(ValueError, match="height and width must be of pictures"):
        unpatchify(torch.zeros(1, 2, 2, 1, 3, 3), 7, 5)
