"""Cells of a lattice that share one kernel, masked by distance: a convolution on any lattice that knows its displacements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph import ops
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import Stencil, StencilKernel, StencilMethod
from lmn_graph.rules._displacements import SAME, displacements, longest
from lmn_graph.rules.base import RULES
from lmn_graph.rules.continuous import CellState, ContinuousRule
from topologies import _checks

Mask = Literal["ball", "gaussian", "exponential", "inverse"]
Method = Literal["auto", "sparse", "convolution", "fft", "separable"]

_MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "ball": torch.ones_like,
    "gaussian": lambda scaled: torch.exp(-scaled.square() / 2),
    "exponential": lambda scaled: torch.exp(-scaled),
    "inverse": lambda scaled: 1 / (1 + scaled),
}
# Numbers of offsets from which a form is fastest, as measured in docs/performance.md.
_FFT_FROM = 56  # before it the sparse product
_FFT_OF_MATRICES_FROM = 100  # before it the convolution
_RUNNING_SUMS_FROM = 24  # before it the sparse product


class KernelParameters(NamedTuple):
    """What a step needs: the graph, the masked kernel [K] or [K, C, C], the prepared sum over neighbours, the leak."""

    connectivity: Connectivity
    kernel: Tensor
    total: Callable[[Tensor], Tensor]
    leak: Tensor


class _Plan(NamedTuple):
    """How the sum over a lattice is done: the offsets within the mask, the box that their edges fill, if they do."""

    ports: Tensor
    stencil: Stencil | None
    method: Literal["sparse"] | StencilMethod


@RULES.register
class DistanceKernelCA(ContinuousRule):
    r"""Cells that hear their neighbours through one kernel shared by all, masked by the Euclidean distance,

    .. math:: f_i = \tanh\big(\textstyle\sum_o m(\lVert o \rVert)\, k_o\, x_{i+o} + drive_i\big), \qquad
              x \leftarrow (1 - \lambda)\,x + \lambda f.

    There is a number :math:`k_o` for every offset o (``edge_type``) of the neighbourhood; where the zero offset is one (``self_loops``) a
    cell hears itself. On a box this is a masked convolution, circular along periodic axes and filled up with zeros along open ones; it runs
    as well on any other lattice whose edges have a displacement (``edge_attr``) and a type. With channels, k_o is a matrix C × C that mixes
    them. With ``residual``, :math:`x \leftarrow x + \lambda f`. A graph's ``edge_weight`` is not read.

    The mask m has a cut-off, m = 0 beyond ``radius``, and within it a form: 1 ("ball"), :math:`e^{-d^2/2\ell^2}` ("gaussian"),
    :math:`e^{-d/\ell}` ("exponential") or :math:`1/(1 + d/\ell)` ("inverse"), d the distance and ℓ the ``length``.

    Shapes: drive and activity [N, B], or [N, B, C] with channels; state ``CellState(x)``, starting at 0. K is the number of offsets.

    Args:
        topology: a lattice with ``edge_attr`` and ``edge_type``.
        mask: the form of m.
        radius: the cut-off, at most the longest displacement; None keeps the whole neighbourhood.
        length: ℓ > 0, the scale of the mask; "ball" has none.
        weight: the kernel: [K], or [K, C, C] with channels (row the channel that hears); a number is the same for every offset, each
            channel by itself, and is learned as one number; None draws normal numbers of variance gain²/Σm², with channels gain²/(C Σm²).
        learn_weight: whether the kernel is learned.
        gain: scale of a drawn kernel, > 0.
        channels: None for scalar cells, else C.
        leak: λ in (0, 1]; None learns one per node.
        residual: add f to the state instead of mixing the two.
        method: how the sum is done, all with the same values and gradients: "sparse" on any lattice; on a full box also "convolution"
            (neighbours along at most 3 axes), "fft" and, for a number within a box of offsets, "separable"; "auto" takes what was measured
            to be fastest.

    Raises:
        ValueError: if an argument is out of range, the lattice lacks a field or has several displacements for a type, the mask leaves
            nothing, or the method does not apply to the lattice.

    With a leak that is not learned a trained rule also takes another lattice with the same offsets at the call.

    Source: EuclideanConnected3D of the Lattice Machine Networks repository.
    """

    requires = frozenset({"lattice"})
    weight: Tensor
    mask: Tensor

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        mask: Mask = "ball",
        radius: float | None = None,
        length: float = 1.0,
        weight: float | Tensor | None = None,
        learn_weight: bool = True,
        gain: float = 1.0,
        channels: int | None = None,
        leak: float | None = 1.0,
        residual: bool = False,
        method: Method = "auto",
    ) -> None:
        super().__init__(topology, channels=channels, leak=leak, residual=residual)
        self.form: Mask = _checks.choice("mask", mask, _MASKS)
        self.radius = None if radius is None else _checks.number("radius", radius, minimum=0)
        self.length = _checks.number("length", length, above=0)
        self.gain = _checks.number("gain", gain, above=0)
        self.method: Method = _checks.choice("method", method, ("auto", "sparse", "convolution", "fft", "separable"))
        self.displacement = displacements(self.connectivity)
        self._mask = self._masked()
        self.register_buffer("mask", self._mask.to(torch.get_default_dtype()), persistent=False)
        learned = _checks.flag("learn_weight", learn_weight)
        self._given = self._checked_kernel(weight)
        value = self._initial()
        if learned:
            self.weight = nn.Parameter(value)
        else:
            self.register_buffer("weight", value)
        self.heard, self._plan = self._planned(self.connectivity)

    @property
    def num_offsets(self) -> int:
        """K, the number of offsets of the neighbourhood, those beyond the radius included."""
        return self._mask.numel()

    @property
    def uniform(self) -> bool:
        """Whether the kernel is one number."""
        return self.weight.dim() == 0

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        if isinstance(self.weight, nn.Parameter):
            with torch.no_grad():
                self.weight.copy_(self._initial())

    def kernel(self) -> Tensor:
        """The masked kernel m_o k_o, [K] or [K, C, C]."""
        weight = self.weight.unsqueeze(0) if self.uniform else self.weight
        return self.mask.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1)) * weight

    def learned_weight(self) -> Tensor | None:
        """The kernel on the edges, [E], where it is learned and channels do not mix."""
        if not isinstance(self.weight, nn.Parameter) or self.weight.dim() == 3:
            return None
        return self._on_edges(self.kernel(), self.connectivity)

    def resolve(self, graph: Data | Connectivity | None) -> Connectivity:
        """The lattice of a call: the bound one or, where no leak is learned, another one with the same offsets."""
        if graph is None or graph is self.connectivity or self.leak.per_node:
            return super().resolve(graph)
        found = graph if isinstance(graph, Connectivity) else Connectivity(graph).to(self.connectivity.rowptr.device)
        if found.same_graph(self.connectivity):
            return self.connectivity.in_order_of(found)
        self._check_requirements(found)
        there, here = displacements(found), self.displacement
        if there.shape != here.shape or not torch.allclose(there, here, rtol=0, atol=SAME * longest(here), equal_nan=True):
            raise ValueError(
                f"graph must have the offsets of the lattice that this {type(self).__name__} is bound to, {self.connectivity}; got {found}"
            )
        return found

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> KernelParameters:
        connectivity = self.resolve(graph)
        bound = connectivity.rowptr is self.connectivity.rowptr
        heard, plan = (self.heard, self._plan) if bound else self._planned(connectivity)
        kernel = self.kernel()
        return KernelParameters(connectivity, kernel, self._total(heard, plan, kernel), self.leak())

    def step(self, p: KernelParameters, state: CellState, drive: Tensor | None) -> tuple[CellState, Tensor]:
        x = state.x
        if self._is_propagated() or type(self).message is not DistanceKernelCA.message:
            weight = self._on_edges(p.kernel.to(torch.promote_types(x.dtype, p.kernel.dtype)), p.connectivity)
            a = self.propagated(p.connectivity, x=x.to(weight.dtype), weight=weight).to(x.dtype)
        else:
            a = p.total(x)
        return self.moved(x, torch.tanh(a if drive is None else a + drive), p.leak)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """m_o k_o x_j for every edge, k_o a number or a matrix: the reference of every method."""
        return x_j @ weight.mT if weight.dim() == 3 and weight.size(2) > 1 else weight * x_j

    def extra_repr(self) -> str:
        form = self.form if self.form == "ball" else f"{self.form}, length={self.length:g}"
        radius = "" if self.radius is None else f", radius={self.radius:g}"
        return f"mask={form}{radius}, method={self._plan.method}, {self._dynamics_repr()}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistanceKernelCA:
        super()._apply(fn, recurse)
        self.mask.copy_(self._mask)  # in double precision it is not what single precision has made of it
        return self

    def _masked(self) -> Tensor:
        """m of every offset, float64 [K]; 0 for types that no edge has."""
        distance = self.displacement.norm(dim=1)
        there = distance[distance.isfinite()]
        farthest = longest(self.displacement)
        if self.radius is not None and self.radius > farthest * (1 + SAME):
            raise ValueError(f"radius must be at most the longest displacement of {self.connectivity}, {farthest:g}, got {self.radius:g}")
        mask = _MASKS[self.form](distance / self.length).nan_to_num(0.0)
        if self.radius is not None:
            mask = mask * (distance <= self.radius * (1 + SAME))
        mask = mask * (mask.to(torch.get_default_dtype()) > 0) * distance.isfinite()
        if there.numel() and not bool(mask.any()):
            known = ", ".join(f"{value:g}" for value in there.unique().tolist()[:8])
            got = "the whole neighbourhood" if self.radius is None else f"radius={self.radius:g}"
            raise ValueError(f"radius and length must leave a neighbour: the distances are {known}, got {got}, length={self.length:g}")
        return mask

    def _checked_kernel(self, weight: float | Tensor | None) -> float | Tensor | None:
        if weight is None or not isinstance(weight, Tensor) or weight.dim() == 0:
            return None if weight is None else _checks.number("weight", weight)
        shape = (self.num_offsets,) if self.channels is None else (self.num_offsets, self.channels, self.channels)
        finite = bool(weight.isfinite().all())
        if weight.shape != shape or not weight.is_floating_point() or not finite:
            got = f"{weight.dtype} {tuple(weight.shape)}" + ("" if finite else " with NaN or infinity")
            raise ValueError(f"weight must be a number or a finite floating-point tensor {list(shape)}, got {got}")
        return weight.detach().clone()

    def _initial(self) -> Tensor:
        if isinstance(self._given, Tensor):
            return self._given.clone()
        if self._given is not None:
            return torch.tensor(self._given, dtype=torch.get_default_dtype())
        power = float(self._mask.square().sum()) * (self.channels or 1) or 1.0
        shape = (self.num_offsets,) if self.channels is None else (self.num_offsets, self.channels, self.channels)
        return self.gain / power**0.5 * torch.randn(shape)

    def _planned(self, connectivity: Connectivity) -> tuple[Connectivity, _Plan]:
        """The part of a lattice that is within the mask, and how the sum over it is done."""
        ports = self._mask.nonzero().flatten()
        heard = connectivity
        if len(ports) < self.num_offsets:
            assert connectivity.edge_type is not None
            assert connectivity.edge_attr is not None
            number = torch.full((self.num_offsets,), -1)
            number[ports] = torch.arange(len(ports))
            kind = number.to(connectivity.edge_type.device)[connectivity.edge_type]
            kept = kind >= 0
            part = Data(edge_index=connectivity.edge_index[:, kept], num_nodes=connectivity.num_nodes, shape=connectivity.shape)
            part.edge_type, part.edge_attr, part.name = kind[kept], connectivity.edge_attr[kept], connectivity.name
            heard = Connectivity(part)
        stencil = Stencil.of(heard)
        return heard, _Plan(ports, stencil, self._chosen(stencil, connectivity))

    def _chosen(self, stencil: Stencil | None, connectivity: Connectivity) -> Literal["sparse"] | StencilMethod:
        """The method, checked against the lattice; "auto" by what docs/performance.md measures."""
        one = self.uniform and bool((self._mask[self._mask > 0] == self._mask.max()).all())
        if self.method == "sparse" or (self.method == "auto" and stencil is None):
            return "sparse"
        if stencil is None:
            raise ValueError(
                f"method={self.method!r} needs a full box in which all cells have the same offsets, which {connectivity} is not: "
                'use "sparse" or "auto"'
            )
        if self.method != "auto":
            if (reason := stencil.refusal(self.method, uniform=one)) is not None:
                raise ValueError(f"method={self.method!r} needs {reason}")
            return self.method
        count = stencil.num_offsets
        if self.weight.dim() == 3:
            convolved = stencil.refusal("convolution", uniform=False) is None and count < _FFT_OF_MATRICES_FROM
            return "convolution" if convolved else "fft"
        if count >= _RUNNING_SUMS_FROM and stencil.refusal("separable", uniform=one) is None:
            return "separable"
        return "fft" if count >= _FFT_FROM else "sparse"

    def _total(self, heard: Connectivity, plan: _Plan, kernel: Tensor) -> Callable[[Tensor], Tensor]:
        """The sum x ↦ Σ m_o k_o x, prepared for a rollout."""
        if len(plan.ports) < self.num_offsets:
            kernel = kernel[plan.ports.to(kernel.device)]
        if plan.method != "sparse":
            assert plan.stencil is not None
            return StencilKernel(plan.stencil, kernel[0] if plan.method == "separable" else kernel, plan.method)
        if kernel.dim() == 3:
            return lambda x: ops.typed_sum(heard, x, kernel)
        weight = ops.EdgeWeight(heard, self._on_edges(kernel, heard))
        return lambda x: ops.weighted_sum(heard, x, weight)

    @staticmethod
    def _on_edges(kernel: Tensor, connectivity: Connectivity) -> Tensor:
        assert connectivity.edge_type is not None
        return kernel.index_select(0, connectivity.edge_type)
