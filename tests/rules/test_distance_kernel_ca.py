"""DistanceKernelCA: a masked convolution on boxes, the same sum on any other lattice; every method has one outcome."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity, rollout
from lmn_graph.rules import DistanceKernelCA

MIXED = ("open", "periodic")
# lattice, options of the rule, the methods that apply beside "sparse"
CASES = {
    "ring": (lambda: topologies.grid(9, 1, 2), {}, ("convolution", "fft")),
    "gaussian plane": (
        lambda: topologies.grid((5, 6), 2, 2, boundary=MIXED, self_loops=True),
        {"mask": "gaussian", "length": 1.5},
        ("convolution", "fft"),
    ),
    "ball in a box": (lambda: topologies.grid((6, 5), 2, 2), {"radius": math.sqrt(2)}, ("convolution", "fft")),
    "exponential cube": (lambda: topologies.grid(3, 3), {"mask": "exponential", "radius": 1.5}, ("convolution", "fft")),
    "four axes": (lambda: topologies.grid((3, 2, 3, 2), 4), {"mask": "inverse"}, ("fft",)),
    "one number": (lambda: topologies.grid((5, 6), 2, 2, boundary=MIXED), {"weight": 0.1}, ("convolution", "fft", "separable")),
    "one number in a ball": (lambda: topologies.grid(5, 2, 2), {"weight": 0.1, "radius": 1.5}, ("convolution", "fft", "separable")),
    "one number, channels": (lambda: topologies.grid(5, 2), {"weight": 0.2, "channels": 2}, ("convolution", "fft", "separable")),
    "one number, masked": (lambda: topologies.grid(5, 2), {"weight": 0.2, "mask": "gaussian"}, ("convolution", "fft")),
    "channels": (lambda: topologies.grid((4, 5), 2, boundary=MIXED), {"channels": 3, "mask": "inverse"}, ("convolution", "fft")),
    "channels in a ball": (lambda: topologies.grid(4, 3), {"channels": 2, "radius": 1}, ("convolution", "fft")),
    "one channel": (lambda: topologies.grid((4, 5), 2), {"channels": 1}, ("convolution", "fft")),
    "learned leak": (lambda: topologies.grid((4, 5), 2), {"leak": None, "residual": True}, ("convolution", "fft")),
    "honeycomb": (lambda: topologies.hexagonal(3, 4), {"mask": "gaussian"}, ()),
    "columns": (lambda: topologies.columns(2, topologies.grid(4, 1)), {"channels": 2}, ()),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def outcome(rule, drive):
    """Activity, and the gradients of a loss on it to the drive and every parameter, first and second."""
    drive = drive.clone().requires_grad_()
    wanted = [drive, *rule.parameters()]
    activity = rollout(rule, drive, steps=3).activity
    generator = torch.Generator().manual_seed(3)
    loss = (activity * torch.randn(activity.shape, generator=generator, dtype=activity.dtype)).sum()
    first = torch.autograd.grad(loss, wanted, create_graph=True)
    second = torch.autograd.grad(sum(value.square().sum() for value in first), wanted)
    return [activity, *first, *second]


@every_case
def test_every_method_has_the_values_and_derivatives_of_pygs_propagate(case):
    """In double precision, of first and second order, to the drive, the kernel and the leak; edges in any order."""
    lattice, options, methods = case
    graph = lattice()
    for given in (graph, shuffled(graph)):
        torch.manual_seed(1)
        reference = DistanceKernelCA(given, **options).double()
        reference.reference = True
        tail = () if reference.channels is None else (reference.channels,)
        drive = torch.randn(2, graph.num_nodes, *tail, dtype=torch.float64)
        expected = outcome(reference, drive)
        assert bool(expected[2].any())
        for method in ("auto", "sparse", *methods):
            rule = DistanceKernelCA(given, **options, method=method).double()
            rule.load_state_dict(reference.state_dict())
            for got, want in zip(outcome(rule, drive), expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@every_case
def test_a_method_that_does_not_apply_is_refused(case):
    lattice, options, methods = case
    for method in {"convolution", "fft", "separable"} - set(methods):
        with pytest.raises(ValueError, match=f"method='{method}' needs "):
            DistanceKernelCA(lattice(), **options, method=method)


def shuffled(graph):
    """The same lattice with its edges in another order."""
    order = torch.randperm(graph.num_edges, generator=torch.Generator().manual_seed(2))
    other = graph.clone()
    other.edge_index = graph.edge_index[:, order]
    other.edge_attr, other.edge_type = graph.edge_attr[order], graph.edge_type[order]
    return other


def masked_kernel(rule, radius, form):
    """The kernel of a cube of side 2·radius + 1 times a mask of its own making, float64 [D, D, D]; the centre is heard."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    distance = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).square().sum(0).sqrt()
    return rule.weight.detach().double().view(distance.shape) * form(distance)


FORMS = {
    "ball": ({"mask": "ball", "radius": 2}, lambda d: (d <= 2).double()),
    "gaussian": ({"mask": "gaussian", "length": 0.8, "radius": 3}, lambda d: torch.exp(-d * d / (2 * 0.64)) * (d <= 3)),
    "exponential": ({"mask": "exponential", "length": 2.0}, lambda d: torch.exp(-d / 2)),
    "inverse": ({"mask": "inverse", "length": 0.5, "radius": 2.5}, lambda d: 0.5 / (0.5 + d) * (d <= 2.5)),
}


@pytest.mark.parametrize("method", ["sparse", "convolution", "fft", "auto"])
@pytest.mark.parametrize(("options", "form"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_on_a_torus_it_is_a_masked_circular_convolution(method, options, form, dtype, tolerance):
    """torch's conv3d after circular padding, on a box with three different sides, the mask written down independently."""
    sides = (5, 6, 7)
    rule = DistanceKernelCA(topologies.grid(sides, 3, 2, self_loops=True), **options, method=method, gain=0.5).to(dtype)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(210, 4, generator=generator, dtype=dtype)
    drive = torch.randn(210, 4, generator=generator, dtype=dtype)
    _, activity = rule(rule.initial_state(4)._replace(x=x), drive)
    padded = functional.pad(x.t().reshape(4, 1, *sides), (2,) * 6, mode="circular")
    heard = functional.conv3d(padded, masked_kernel(rule, 2, form).to(dtype)[None, None])
    expected = torch.tanh(heard.reshape(4, 210).t() + drive)
    torch.testing.assert_close(activity, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ["sparse", "convolution", "fft"])
def test_channels_are_those_of_an_open_convolution(method):
    """Zero padding, matrices that mix channels: conv2d, row of the matrix the channel that hears."""
    rule = DistanceKernelCA(topologies.grid((5, 7), 2, boundary="open", self_loops=True), channels=3, method=method).double()
    x = torch.randn(35, 2, 3, dtype=torch.float64)
    _, activity = rule(rule.initial_state(2)._replace(x=x))
    weight = rule.weight.detach().view(3, 3, 3, 3).permute(2, 3, 0, 1)
    heard = functional.conv2d(x.permute(1, 2, 0).reshape(2, 3, 5, 7), weight, padding=1)
    torch.testing.assert_close(activity, torch.tanh(heard.flatten(2).permute(2, 0, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["wrap", "constant"])
def test_one_number_on_a_box_is_scipys_filter(boundary):
    """scipy.ndimage.uniform_filter, the mean over the box, times the number of cells in it."""
    from scipy.ndimage import uniform_filter

    grid = topologies.grid((7, 9), 2, 2, boundary="periodic" if boundary == "wrap" else "open", self_loops=True)
    rule = DistanceKernelCA(grid, weight=0.03).double()
    assert "method=separable" in repr(rule)
    x = torch.randn(63, 2, dtype=torch.float64)
    _, activity = rule(rule.initial_state(2)._replace(x=x))
    mean = uniform_filter(x.view(7, 9, 2).numpy(), size=(5, 5, 1), mode=boundary)
    torch.testing.assert_close(activity.view(7, 9, 2), torch.tanh(0.03 * 25 * torch.from_numpy(mean)), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("lattice", "options", "method"),
    [
        (lambda: topologies.grid(9, 2), {}, "sparse"),
        (lambda: topologies.grid(5, 3, 2), {}, "fft"),
        (lambda: topologies.grid(5, 3, 2), {"radius": 1.5}, "sparse"),
        (lambda: topologies.grid(5, 3, 2), {"weight": 1.0}, "separable"),
        (lambda: topologies.grid(5, 3, 2), {"weight": 1.0, "mask": "inverse"}, "fft"),
        (lambda: topologies.grid(9, 2), {"weight": 1.0}, "sparse"),
        (lambda: topologies.grid(9, 2), {"channels": 2}, "convolution"),
        (lambda: topologies.grid(5, 3, 2), {"channels": 2}, "fft"),
        (lambda: topologies.grid(3, 4), {"channels": 2}, "fft"),
        (lambda: topologies.triangular(5, 5), {"channels": 2}, "sparse"),
    ],
)
def test_auto_takes_what_was_measured_to_be_fastest(lattice, options, method):
    """By the number of offsets within the mask, and by what the lattice and the kernel allow."""
    assert f"method={method}," in repr(DistanceKernelCA(lattice(), **options))


def test_a_number_is_learned_as_one_number():
    """Its gradient is the sum of those of a kernel that happens to be uniform."""
    grid = topologies.grid(5, 2)
    one = DistanceKernelCA(grid, weight=0.1).double()
    many = DistanceKernelCA(grid, weight=torch.full((8,), 0.1)).double()
    with torch.no_grad():
        many.weight.fill_(float(one.weight))
    drive = torch.randn(3, 25, dtype=torch.float64)
    assert one.weight.shape == ()
    gradients = []
    for rule in (one, many):
        rollout(rule, drive, steps=3).activity.square().sum().backward()
        gradients.append(rule.weight.grad.sum())
    torch.testing.assert_close(*gradients)
    fixed = DistanceKernelCA(grid, weight=0.1, learn_weight=False)
    assert not list(fixed.parameters())
    assert fixed.learned_weight() is None


@pytest.mark.parametrize("channels", [None, 4])
def test_a_drawn_kernel_keeps_the_variance(channels):
    """Σ m² k² has the mean gain² over many drawn kernels: a sum of independent terms of unit variance has it too."""
    rule = DistanceKernelCA(topologies.grid(9, 2, 4), mask="gaussian", length=2.0, gain=1.5, channels=channels)
    power = []
    for _ in range(300):
        rule.reset_parameters()
        power.append(float(rule.kernel().detach().square().sum()) / (channels or 1))
    assert sum(power) / len(power) == pytest.approx(1.5**2, rel=0.05)


def test_reset_restores_what_was_given():
    grid = topologies.grid(5, 2)
    for weight in (0.25, torch.linspace(-1, 1, 8)):
        rule = DistanceKernelCA(grid, weight=weight)
        with torch.no_grad():
            rule.weight.add_(1)
        rule.reset_parameters()
        assert torch.equal(rule.weight, torch.as_tensor(weight))


def test_learned_weights_are_those_of_the_edges():
    """What losses on structure see: the masked kernel on every edge, with its gradient; matrices are no weights of edges."""
    grid = topologies.grid(5, 2, 2)
    rule = DistanceKernelCA(grid, radius=1.5)
    weight = rule.learned_weight()
    assert weight.shape == (grid.num_edges,)
    assert torch.equal(weight != 0, grid.edge_attr.norm(dim=1) <= 1.5)
    (gradient,) = torch.autograd.grad(weight.sum(), rule.weight)
    assert torch.equal(gradient, 25 * rule.mask)
    assert DistanceKernelCA(grid, channels=2).learned_weight() is None


def test_the_mask_has_every_digit_in_double_precision():
    """exp(−1/8) rounded to float32 is another number."""
    rule = DistanceKernelCA(topologies.grid(5, 1), mask="gaussian", length=2.0)
    assert rule.mask.dtype == torch.float32
    assert rule.double().mask.tolist() == pytest.approx([math.exp(-1 / 8)] * 2, rel=1e-15)


@pytest.mark.parametrize("method", ["sparse", "fft"])
def test_a_trained_kernel_runs_on_a_larger_lattice(method):
    """The same offsets on another box, on the same box in another order of edges; with other offsets or a learned leak it is refused."""
    small, large = topologies.grid(5, 2, 2), topologies.grid((9, 8), 2, 2, boundary="open")
    rule = DistanceKernelCA(small, radius=2.0, mask="exponential", method=method).double()
    twin = DistanceKernelCA(large, radius=2.0, mask="exponential", method=method).double()
    twin.load_state_dict(rule.state_dict())
    drive = torch.randn(2, 72, dtype=torch.float64)
    expected = rollout(twin, drive, steps=3).activity
    assert torch.equal(rollout(rule, drive, steps=3, graph=large).activity, expected)
    own = rollout(rule, drive[:, :25], steps=3).activity
    assert torch.equal(rollout(rule, drive[:, :25], steps=3, graph=shuffled(small)).activity, own)
    with pytest.raises(ValueError, match="graph must have the offsets of the lattice that this DistanceKernelCA is bound to"):
        rollout(rule, drive, steps=3, graph=topologies.grid((9, 8), 2))
    with pytest.raises(ValueError, match="topology must have the property 'lattice'"):
        rollout(rule, drive, steps=3, graph=Data(edge_index=large.edge_index, num_nodes=72))
    with pytest.raises(ValueError, match="graph must be the one that this DistanceKernelCA is bound to"):
        rollout(DistanceKernelCA(small, leak=None).double(), drive, steps=3, graph=large)


@pytest.mark.parametrize("method", ["sparse", "fft"])
def test_copies_keep_their_method_and_run(method):
    """The prepared indices of a copy are its own."""
    rule = DistanceKernelCA(topologies.grid(6, 2, 2), radius=2.0, method=method)
    drive = torch.rand(2, 36)
    expected = rollout(rule, drive, steps=3).activity
    for other in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert repr(other) == repr(rule)
        assert torch.equal(rollout(other, drive, steps=3).activity, expected)
    assert "mask=ball, radius=2" in repr(rule)


def test_a_lattice_with_holes_runs_on_its_edges():
    """A tenth of the edges cut: no box any more, and "auto" says so; the sum is that over the edges which are left."""
    grid = topologies.grid(6, 2)
    keep = torch.rand(grid.num_edges, generator=torch.Generator().manual_seed(0)) > 0.1
    fields = {name: grid[name][keep] for name in ("edge_attr", "edge_type")}
    holes = Data(edge_index=grid.edge_index[:, keep], num_nodes=36, shape=(6, 6), **fields)
    rule = DistanceKernelCA(holes).double()
    assert "method=sparse" in repr(rule)
    x = torch.randn(36, 2, dtype=torch.float64)
    dense = torch.zeros(36, 36, dtype=torch.float64)
    dense[holes.edge_index[1], holes.edge_index[0]] = rule.weight.detach()[holes.edge_type]
    torch.testing.assert_close(rule(rule.initial_state(2)._replace(x=x))[1], torch.tanh(dense @ x))


def test_no_neighbours_at_all_is_a_lattice_too():
    rule = DistanceKernelCA(topologies.grid(1, 2))
    drive = torch.rand(3, 1)
    torch.testing.assert_close(rollout(rule, drive, steps=1).activity[:, 0], torch.tanh(drive))
    assert rule.weight.shape == (0,)


def test_memory_does_not_grow_with_the_edges():
    """Neither [E, B] nor [E, C, C]: the largest tensor that autograd keeps of a sparse step with channels is the state or the kernel."""
    rule = DistanceKernelCA(topologies.grid(8, 2, 3), channels=4, method="sparse")
    state = rule.initial_state(6)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        rule(state._replace(x=torch.rand_like(state.x)), None)
    assert sizes
    assert max(sizes) <= max(64 * 6 * 4, 48 * 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.5}, r"radius and length must leave a neighbour: the distances are 1, 1\.41421, got radius=0\.5"),
        ({"mask": "gaussian", "length": 1e-3}, "radius and length must leave a neighbour.*got the whole neighbourhood, length=0.001"),
        ({"radius": 2}, r"radius must be at most the longest displacement of Connectivity\(grid, .*\), 1\.41421, got 2"),
        ({"radius": -1}, "radius must be a finite number >= 0, got -1"),
        ({"radius": math.nan}, "radius must be a finite number >= 0, got nan"),
        ({"length": 0}, "length must be a finite number > 0, got 0"),
        ({"gain": math.inf}, "gain must be a finite number > 0, got inf"),
        ({"mask": "square"}, "mask must be one of 'ball', 'gaussian', 'exponential', 'inverse', got 'square'"),
        ({"method": "dense"}, "method must be one of 'auto', 'sparse', 'convolution', 'fft', 'separable', got 'dense'"),
        ({"weight": torch.ones(7)}, r"weight must be a number or a finite floating-point tensor \[8\], got torch.float32 \(7,\)"),
        ({"weight": torch.ones(8, 2, 2)}, r"weight must be .*\[8\], got torch.float32 \(8, 2, 2\)"),
        ({"weight": torch.ones(8), "channels": 2}, r"weight must be .*\[8, 2, 2\], got torch.float32 \(8,\)"),
        ({"weight": torch.ones(8, 3, 3), "channels": 2}, r"weight must be .*\[8, 2, 2\], got torch.float32 \(8, 3, 3\)"),
        ({"weight": torch.ones(8, dtype=torch.long)}, r"weight must be .*\[8\], got torch.int64"),
        ({"weight": torch.full((8,), math.nan)}, r"weight must be .*\[8\], got torch.float32 \(8,\) with NaN or infinity"),
        ({"weight": math.inf}, "weight must be a finite number, got inf"),
        ({"learn_weight": 1}, "learn_weight must be True or False, got 1"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"method": "separable"}, "method='separable' needs one number on all offsets of a box.*got a kernel of many numbers"),
        ({"method": "separable", "weight": 1.0, "mask": "inverse"}, "method='separable' needs one number on all offsets of a box"),
        ({"method": "separable", "weight": 1.0, "radius": 1}, "method='separable' needs one number on all offsets of a box.*on 4 offsets"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DistanceKernelCA(topologies.grid(5, 2), **options)


def test_lattices_that_lack_something_are_refused():
    grid = topologies.grid(5, 2)
    for field in ("edge_attr", "edge_type"):
        lacking = grid.clone()
        del lacking[field]
        with pytest.raises(ValueError, match=f"topology must have edge_attr and edge_type, .* lacks {field}"):
            DistanceKernelCA(lacking)
    with pytest.raises(ValueError, match="topology must have the property 'lattice' that DistanceKernelCA requires"):
        DistanceKernelCA(topologies.complete(5))
    for field, value, message in (
        ("edge_type", grid.edge_type.double(), "edge_type must be integers"),
        ("edge_type", grid.edge_type - 1, "edge_type must be integers"),
        ("edge_type", grid.edge_type + 1000, "edge_type must be integers"),
        ("edge_attr", grid.edge_attr * math.inf, r"edge_attr must be finite displacements .* with NaN or infinity"),
        ("edge_attr", grid.edge_attr[..., None], r"edge_attr must be finite displacements \[E, D\]"),
        ("edge_attr", torch.arange(200.0), "edge_attr must be one displacement for every edge_type, got several for type [0-7] of"),
    ):
        broken = grid.clone()
        broken[field] = value
        with pytest.raises(ValueError, match=message):
            DistanceKernelCA(broken)


def test_a_connectivity_is_a_topology():
    connectivity = Connectivity(shuffled(topologies.grid(5, 2)))
    assert DistanceKernelCA(connectivity).connectivity is connectivity
