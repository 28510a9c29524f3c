"""Sums with one kernel over a box: every method equals gather and add on the edges, twice differentiated too; only full boxes pass."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import Stencil, StencilKernel, stencil_sum, typed_sum, weighted_sum

LATTICES = {
    "ring": lambda: topologies.grid(7, 1, 2),
    "plane": lambda: topologies.grid((5, 6), 2, 2, self_loops=True),
    "open plane": lambda: topologies.grid((5, 4), 2, 2, boundary="open"),
    "cylinder": lambda: topologies.grid((3, 6), 2, 2, boundary=("open", "periodic")),
    "diamond": lambda: topologies.grid((5, 5), 2, 2, metric="manhattan", self_loops=True),
    "aliased": lambda: topologies.grid((4, 3), 2, 2),
    "aliased ball": lambda: topologies.grid((4, 2, 5), 3, 2, metric="euclidean"),
    "cube": lambda: topologies.grid((3, 4, 5), 3, 1),
    "one wide": lambda: topologies.grid((1, 6, 1), 3, 2),
    "open, short": lambda: topologies.grid((2, 3), 2, 4, boundary="open"),
    "four axes": lambda: topologies.grid((3, 2, 3, 3), 4, 1, boundary=("periodic", "open", "open", "periodic")),
    "eight axes": lambda: topologies.grid(2, 8, 1, metric="manhattan"),
    "raster": lambda: topologies.raster(4, 5),
}
METHODS = ("convolution", "fft", "separable")
every_lattice = pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES)
every_method = pytest.mark.parametrize("method", METHODS)


def gathered(connectivity, x, kernel):
    """The truth: one message per edge, added up at its target."""
    source, target = connectivity.edge_index
    on_edges = (
        kernel.expand(int(connectivity.edge_type.max()) + 1)[connectivity.edge_type] if kernel.dim() < 2 else kernel[connectivity.edge_type]
    )
    message = x[source] @ on_edges.mT if kernel.dim() == 3 else on_edges.view(-1, *[1] * (x.dim() - 1)) * x[source]
    return message.new_zeros(x.size(0), *message.shape[1:]).index_add(0, target, message)


def small_kernels(stencil, method, normal):
    """The kernels that a method takes: one number, one per offset, matrices from 2 to 3 channels; each with a state."""
    nodes = torch.Size(stencil.shape).numel()
    cases = [(normal(), normal(nodes, 3)), (normal(), normal(nodes, 2, 2))]
    if method != "separable":
        count = stencil.num_offsets
        cases += [(normal(count), normal(nodes, 3)), (normal(count), normal(nodes, 2, 2)), (normal(count, 3, 2), normal(nodes, 2, 2))]
    return [case for case in cases if stencil.refusal(method, uniform=case[0].dim() == 0) is None]


@every_lattice
@every_method
def test_values_and_gradients_equal_gather_and_add(lattice, method, normal):
    """Open, periodic, mixed and aliased axes; axes without neighbours; scalar cells, channels, mixed channels."""
    connectivity = Connectivity(lattice())
    stencil = Stencil.of(connectivity)
    for kernel, x in small_kernels(stencil, method, normal):
        kernel.requires_grad_()
        x.requires_grad_()
        found, expected = stencil_sum(stencil, x, kernel, method), gathered(connectivity, x, kernel)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
        g = normal(*expected.shape)
        for got, want in zip(torch.autograd.grad(found, (x, kernel), g), torch.autograd.grad(expected, (x, kernel), g)):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


def test_between_them_the_lattices_put_every_method_to_work():
    """Otherwise the test above could compare nothing."""
    stencils = [Stencil.of(Connectivity(lattice())) for lattice in LATTICES.values()]
    assert all(sum(stencil.refusal(method, uniform=True) is None for stencil in stencils) >= 7 for method in METHODS)
    assert {periodic for stencil in stencils for periodic in stencil.periodic} == {True, False}


@pytest.mark.parametrize(
    "lattice", [LATTICES["cylinder"], LATTICES["one wide"], LATTICES["aliased"]], ids=["cylinder", "one wide", "aliased"]
)
@every_method
def test_second_derivatives_are_exact(lattice, method, normal):
    """Losses that differentiate the dynamics differentiate twice; against finite differences."""
    stencil = Stencil.of(Connectivity(lattice()))
    for kernel, x in small_kernels(stencil, method, normal):
        kernel, x = kernel.requires_grad_(), x[:, :1].clone().requires_grad_()
        assert gradcheck(lambda k, x: stencil_sum(stencil, x, k, method), (kernel, x))
        assert gradgradcheck(lambda k, x: stencil_sum(stencil, x, k, method), (kernel, x))


@every_lattice
def test_matrices_per_edge_type_equal_gather_and_add(lattice, normal):
    connectivity = Connectivity(lattice())
    types = int(connectivity.edge_type.max()) + 1
    weight, x = normal(types, 3, 2).requires_grad_(), normal(connectivity.num_nodes, 3, 2).requires_grad_()
    found, expected = typed_sum(connectivity, x, weight), gathered(connectivity, x, weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    g = normal(*expected.shape)
    for got, want in zip(torch.autograd.grad(found, (x, weight), g), torch.autograd.grad(expected, (x, weight), g)):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


def test_matrices_per_edge_type_can_be_differentiated_twice_and_forward(normal):
    """On a multigraph with self-loops and a type that no edge has."""
    edges = torch.tensor([[0, 0, 1, 2, 2, 3], [1, 1, 1, 0, 3, 0]])
    connectivity = Connectivity(Data(edge_index=edges, num_nodes=4, edge_type=torch.tensor([0, 0, 2, 2, 0, 3])))
    weight, x = normal(4, 3, 2).requires_grad_(), normal(4, 2, 2).requires_grad_()
    assert gradcheck(lambda w, x: typed_sum(connectivity, x, w), (weight, x), check_forward_ad=True)
    assert gradgradcheck(lambda w, x: typed_sum(connectivity, x, w), (weight, x))


def test_edges_are_gathered_in_blocks(monkeypatch, normal):
    """A type is cut into pieces where it is wider than a block: the sums and gradients stay the same."""
    from lmn_graph.ops import typed

    connectivity = Connectivity(topologies.grid(4, 2))
    weight, x = normal(8, 2, 2).requires_grad_(), normal(16, 3, 2).requires_grad_()
    whole = typed_sum(connectivity, x, weight)
    gradients = torch.autograd.grad(whole.square().sum(), (x, weight))
    monkeypatch.setattr(typed, "_BLOCK", 30)
    pieces = typed_sum(connectivity, x, weight)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-13)
    for got, want in zip(torch.autograd.grad(pieces.square().sum(), (x, weight)), gradients):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@every_method
def test_forward_mode_is_the_sum_of_the_tangent(method, normal):
    stencil = Stencil.of(Connectivity(topologies.grid((5, 4), 2, boundary=("open", "periodic"))))
    x, tangent, kernel = normal(20, 2), normal(20, 2), normal()
    with forward_ad.dual_level():
        y = stencil_sum(stencil, forward_ad.make_dual(x, tangent), kernel, method)
        found = forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(found, stencil_sum(stencil, tangent, kernel, method))


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_a_uniform_box_is_scipys_filter(method, radius, normal):
    """scipy.ndimage.uniform_filter with mode "wrap" is the mean over the box, centre included."""
    from scipy.ndimage import uniform_filter

    stencil = Stencil.of(Connectivity(topologies.grid((11, 13), 2, radius, self_loops=True)))
    x = normal(143, 2)
    width = 2 * radius + 1
    expected = width**2 * uniform_filter(x.view(11, 13, 2).numpy(), size=(width, width, 1), mode="wrap")
    found = stencil_sum(stencil, x, torch.tensor(1.0, dtype=torch.float64), method)
    torch.testing.assert_close(found.view(11, 13, 2), torch.from_numpy(expected), rtol=1e-11, atol=1e-11)


def test_running_sums_lose_nothing_on_a_long_axis(generator):
    """In float32, on an axis of large numbers with a few small ones, where a difference of prefix sums has no correct digit."""
    x = torch.rand(5000, 1, generator=generator)
    x[:2000] *= 1e6
    stencil = Stencil.of(Connectivity(topologies.grid(5000, 1, 3, self_loops=True)))
    one = torch.tensor(1.0)
    expected = stencil_sum(stencil, x.double(), one.double(), "separable")
    torch.testing.assert_close(stencil_sum(stencil, x, one, "separable").double(), expected, rtol=1e-6, atol=0)


def relabelled(data, **fields):
    """The lattice with some fields changed."""
    other = data.clone()
    for name, value in fields.items():
        other[name] = value
    return other


def test_only_a_full_box_is_a_stencil():
    """One edge missing, doubled, leading elsewhere or of another type; offsets that vary; sides in the wrong order; no fields at all."""
    grid = topologies.grid((3, 4), 2)
    assert repr(Stencil.of(Connectivity(grid))) == "Stencil(num_offsets=8, shape=(3, 4), periodic=(True, True))"
    keep = torch.arange(grid.num_edges) != 17
    missing = relabelled(grid, **{name: grid[name][..., keep] for name in ("edge_index", "edge_type")}, edge_attr=grid.edge_attr[keep])
    twice = torch.arange(grid.num_edges)
    twice[17] = 18
    doubled = relabelled(grid, edge_index=grid.edge_index[:, twice], edge_type=grid.edge_type[twice], edge_attr=grid.edge_attr[twice])
    elsewhere = grid.edge_index.clone()
    elsewhere[0, 17] = (elsewhere[0, 17] + 5) % 12
    swapped = grid.edge_type.clone()
    swapped[17] = (swapped[17] + 1) % 8
    shifted = grid.edge_attr.clone()
    shifted[17] += 1
    for broken in (
        missing,
        doubled,
        relabelled(grid, edge_index=elsewhere),
        relabelled(grid, edge_type=swapped),
        relabelled(grid, edge_attr=shifted),
        relabelled(grid, edge_attr=grid.edge_attr / 2),
        relabelled(grid, shape=(4, 3)),
        relabelled(grid, shape=(12,)),
        relabelled(grid, edge_type=None),
        relabelled(grid, edge_attr=None),
        relabelled(grid, shape=None),
        topologies.triangular(4, 4),
        topologies.hexagonal(3, 4),
        topologies.grid(1, 2),
    ):
        assert Stencil.of(Connectivity(broken)) is None


def test_an_open_axis_with_one_edge_across_is_no_stencil():
    """Neither open nor periodic."""
    line = topologies.grid(5, 1, boundary="open")
    order = torch.tensor([[4], [0]])
    data = Data(
        edge_index=torch.cat([line.edge_index, order], 1),
        edge_attr=torch.cat([line.edge_attr, -torch.ones(1, 1)]),
        edge_type=torch.cat([line.edge_type, torch.zeros(1, dtype=torch.long)]),
        num_nodes=5,
        shape=(5,),
    )
    assert Stencil.of(Connectivity(data)) is None
    assert Stencil.of(Connectivity(line)).periodic == (False,)


def test_displacements_beyond_half_a_turn_are_the_same_cell(normal):
    """On a ring of 5 a step of 4 is a step of −1, and a step of 9 too; two types that hear the same cell are no stencil."""
    target = torch.arange(5)
    source = (target + 4) % 5
    data = Data(edge_index=torch.stack([source, target]), num_nodes=5, shape=(5,), edge_type=torch.zeros(5, dtype=torch.long))
    for step in (-1.0, 4.0, 9.0):
        data.edge_attr = torch.full((5, 1), step)
        stencil = Stencil.of(Connectivity(data))
        assert stencil.offsets.tolist() == [[-1]]
        x = normal(5, 2)
        for method in METHODS:
            torch.testing.assert_close(stencil_sum(stencil, x, torch.ones((), dtype=torch.float64), method), x.roll(1, 0))


def test_some_of_the_offsets_are_a_stencil_of_their_own(normal):
    connectivity = Connectivity(topologies.grid((5, 6), 2, self_loops=True))
    whole = Stencil.of(connectivity)
    ports = torch.tensor([1, 3, 4, 5, 7])
    part = whole.only(ports)
    kernel, x = normal(9), normal(30, 2)
    zeroed = torch.zeros(9, dtype=torch.float64).index_copy(0, ports, kernel[ports])
    assert part.has_centre
    assert not part.is_box
    for method in ("convolution", "fft"):
        torch.testing.assert_close(stencil_sum(part, x, kernel[ports], method), gathered(connectivity, x, zeroed))
    assert whole.only(torch.tensor([4])).num_offsets == 1
    for method in METHODS:
        found = stencil_sum(whole.only(torch.tensor([4])), x, torch.tensor(2.0, dtype=torch.float64), method)
        torch.testing.assert_close(found, 2 * x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_method
def test_half_precision_is_rounded_once(method, dtype, normal):
    stencil = Stencil.of(Connectivity(topologies.grid((5, 6), 2)))
    x, kernel = normal(30, 4).to(dtype), normal().to(dtype)
    found = stencil_sum(stencil, x, kernel, method)
    assert found.dtype == dtype
    exact = stencil_sum(stencil, x.float(), kernel.float(), method)
    torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@every_method
def test_a_prepared_kernel_is_used_for_states_of_any_floats(method, normal):
    """A kernel prepared in float32 meets a float64 state in float64."""
    stencil = Stencil.of(Connectivity(topologies.grid((5, 6), 2)))
    kernel = normal().float()
    prepared = StencilKernel(stencil, kernel, method)
    x = normal(30, 4)
    assert torch.equal(stencil_sum(stencil, x.float(), prepared), stencil_sum(stencil, x.float(), kernel, method))
    torch.testing.assert_close(prepared(x), stencil_sum(stencil, x, kernel.double(), method), rtol=1e-12, atol=1e-12)


@every_method
def test_empty_batches_have_zero_gradients(method, normal):
    stencil = Stencil.of(Connectivity(topologies.grid((5, 6), 2)))
    kernel = normal().requires_grad_()
    for tail in ((0,), (0, 2), (3, 0)):
        x = normal(30, *tail).requires_grad_()
        y = stencil_sum(stencil, x, kernel, method)
        assert y.shape == x.shape
        assert [float(g.sum()) for g in torch.autograd.grad(y.sum(), (x, kernel))] == [0, 0]


def test_what_does_not_fit_is_refused(normal):
    stencil, other = (Stencil.of(Connectivity(topologies.grid((5, 6), 2))) for _ in range(2))
    x = normal(30, 2)
    with pytest.raises(ValueError, match=r"kernel must be a floating-point tensor \[\], \[8\] or \[8, D, C\], got torch.float64 \(9,\)"):
        stencil_sum(stencil, x, normal(9), "fft")
    with pytest.raises(ValueError, match=r"kernel must be a floating-point tensor .*got torch.int64 \(8,\)"):
        stencil_sum(stencil, x, torch.ones(8, dtype=torch.long), "fft")
    with pytest.raises(ValueError, match="method must be one of 'convolution', 'fft', 'separable', got 'sparse'"):
        stencil_sum(stencil, x, normal(8), "sparse")
    with pytest.raises(ValueError, match=r"method='separable' needs one number on all offsets of a box.*a kernel of many numbers on 8"):
        stencil_sum(stencil, x, normal(8), "separable")
    with pytest.raises(ValueError, match=r"x must be a floating-point tensor \[N, B\] or \[N, B, C\] with N = 30"):
        stencil_sum(stencil, normal(29, 2), normal(8), "fft")
    with pytest.raises(ValueError, match=r"x must be \[30, B, 3\] for a kernel that mixes channels"):
        stencil_sum(stencil, normal(30, 2, 2), normal(8, 2, 3), "fft")
    with pytest.raises(ValueError, match="kernel must be prepared for this very stencil"):
        stencil_sum(stencil, x, StencilKernel(other, normal(8), "fft"))
    four = Stencil.of(Connectivity(topologies.grid(3, 4)))
    with pytest.raises(ValueError, match="method='convolution' needs neighbours along at most 3 axes, got 4"):
        stencil_sum(four, normal(81, 2), normal(80), "convolution")
    cross = Stencil.of(Connectivity(topologies.grid(5, 2, metric="manhattan")))
    with pytest.raises(ValueError, match=r"separable.*one number on 4 offsets from \[-1, -1\] to \[1, 1\]"):
        stencil_sum(cross, normal(25, 2), normal(), "separable")
    graph = Connectivity(topologies.grid(5, 2))
    with pytest.raises(ValueError, match=r"weight must be a floating-point tensor \[K, D, 2\] with K >= 8"):
        typed_sum(graph, normal(25, 3, 2), normal(7, 2, 2))
    with pytest.raises(ValueError, match=r"x must be a floating-point tensor \[25, B, C\]"):
        typed_sum(graph, normal(25, 3), normal(8, 2, 2))
    with pytest.raises(ValueError, match="connectivity must have edge_type"):
        typed_sum(Connectivity(topologies.complete(4)), normal(4, 3, 2), normal(8, 2, 2))


def test_the_weighted_sum_on_edges_is_the_same_sum(normal):
    """What docstrings promise: all methods and ``weighted_sum`` with the kernel written on the edges."""
    connectivity = Connectivity(topologies.grid((4, 5), 2, 2))
    stencil, kernel, x = Stencil.of(connectivity), normal(19), normal(20, 3)
    assert stencil.num_offsets == 19
    expected = weighted_sum(connectivity, x, kernel[connectivity.edge_type])
    for method in itertools.islice(METHODS, 2):
        torch.testing.assert_close(stencil_sum(stencil, x, kernel, method), expected, rtol=1e-12, atol=1e-12)


@every_method
def test_a_compiled_sum_is_one_graph(method, normal):
    """No graph break in the sum, kernel prepared before or within; the same values and gradients."""
    stencil = Stencil.of(Connectivity(topologies.grid((5, 6), 2)))
    kernel, x = normal().requires_grad_(), normal(30, 2).requires_grad_()
    compiled = torch.compile(lambda x, kernel: stencil_sum(stencil, x, kernel, method), backend="aot_eager", fullgraph=True)
    expected = stencil_sum(stencil, x, kernel, method)
    found = compiled(x, kernel)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found.square().sum(), (x, kernel))
    for got, want in zip(gradients, torch.autograd.grad(expected.square().sum(), (x, kernel))):
        torch.testing.assert_close(got, want)
