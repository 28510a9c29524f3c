"""The column of neurons of liquid state machines: nearer neurons are joined more often, each pair of types at a rate of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._draw import hits
from topologies._graph import LIMIT, Seed, assemble, generator_of, refuse_too_large

_LEVELS = 60  # probabilities below 2⁻⁶⁰ count as 0: over all pairs of any graph that fits in memory that is less than 1e-6 of an edge


def liquid(
    L: Sequence[int] = (15, 3, 3),
    *,
    scale: float | Sequence[float] = (0.3, 0.2, 0.4, 0.1),
    length: float = 2.0,
    excitatory: float = 0.8,
    weight: float | Sequence[float] = (1.0, 1.0, -1.0, -1.0),
    seed: Seed = 0,
) -> Data:
    r"""The liquid of Maass, Natschläger and Markram: a box of excitatory and inhibitory neurons, joined at random by distance.

    .. math:: P(j \to i) = C_{t_j t_i}\; e^{-(D_{ij} / \lambda)^2}, \qquad D_{ij} = \lVert x_j - x_i \rVert_2,\; i \neq j

    One neuron sits on every integer point of an open box. Pairs of types t are ordered EE, EI, IE, II and read source → target, as
    in the paper, whose C and synaptic strengths are given "from a to b" (IE is inhibitory → excitatory: its strength is negative).
    Directed and simple, no self-loops; j → i and i → j are independent. Probabilities below 2⁻⁶⁰ ≈ 10⁻¹⁸ count as 0.

    Args:
        L: cells per axis (≥ 1), one int per axis.
        scale: C of the four pairs, each in [0, 1], or one number for all.
        length: λ > 0, in lattice constants.
        excitatory: fraction of excitatory neurons in [0, 1]: exactly round(excitatory · N), placed at random.
        weight: of the four pairs, any finite numbers, or one for all; the paper's own strengths, in nA, are (30, 60, −19, −19).
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with N = Π L_d nodes, numbered in C order (last axis fastest), and edges sorted by target, then source: ``edge_index`` [2, E];
        ``node_type`` [N] int64, 0 excitatory, 1 inhibitory; ``edge_type`` [E] int64, the number of the pair 0 … 3; ``edge_weight`` [E],
        the pair's weight / in-degree of the target, so that with weights ±1 the magnitudes that arrive at a node sum to 1; ``pos``
        [N, len(L)], the integer coordinates; ``name``. Floats have torch's default dtype.

    Raises:
        ValueError: a bad argument, more than 2³¹ − 1 nodes or edges expected, or as many distances within reach of a neuron.

    Example:
        >>> column = liquid()
        >>> column.num_nodes, int((column.node_type == 0).sum())
        (135, 108)

    Source: Maass, Natschläger, Markram, Real-time computing without stable states, Neural Computation 14(11), 2002.
    """
    sides = _sides(L)
    rates, weights = _four("scale", scale, minimum=0, maximum=1), _four("weight", weight)
    length = _checks.number("length", length, above=0)
    excitatory = _checks.number("excitatory", excitatory, minimum=0, maximum=1)
    generator = generator_of(seed)
    num_nodes = math.prod(sides)
    refuse_too_large(f"L={L!r}", nodes=num_nodes)
    counts = round(excitatory * num_nodes), num_nodes - round(excitatory * num_nodes)
    _refuse_too_many(sides, rates, length, counts)
    highest = max(rate for pair, rate in enumerate(rates) if counts[pair // 2] and counts[pair % 2])
    reach = _reach(sides, length, highest)

    node_type = torch.ones(num_nodes, dtype=torch.long)
    node_type[torch.randperm(num_nodes, generator=generator)[: counts[0]]] = 0
    source, target = edge_index = _edges(sides, _offsets(reach, length, highest), rates, node_type, generator)
    edge_type = 2 * node_type[source] + node_type[target]
    received = torch.bincount(target, minlength=num_nodes)[target]
    edges = {"edge_type": edge_type, "edge_weight": torch.tensor(weights)[edge_type] / received}
    pos = torch.stack(torch.meshgrid(*map(torch.arange, sides), indexing="ij"), dim=-1).view(num_nodes, -1)
    return assemble(edge_index, num_nodes, "liquid", edges, node_type=node_type, pos=pos.to(torch.get_default_dtype()))


def _sides(L: Any) -> tuple[int, ...]:
    L = L.tolist() if hasattr(L, "tolist") else L
    if not isinstance(L, Sequence) or isinstance(L, (str, bytes)) or not L:
        raise ValueError(f"L must be a sequence of integers >= 1, one per axis, got {L!r}")
    return tuple(_checks.integer(f"L[{axis}]", side, minimum=1, maximum=LIMIT) for axis, side in enumerate(L))


def _four(name: str, value: Any, **bounds: float) -> tuple[float, ...]:
    """One number for each of EE, EI, IE, II."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return (_checks.number(name, value, **bounds),) * 4
    if len(value) != 4:
        raise ValueError(f"{name} must be one number or four, for EE, EI, IE and II, got {len(value)}: {value!r}")
    return tuple(_checks.number(f"{name}[{pair}]", entry, **bounds) for pair, entry in enumerate(value))


def _refuse_too_many(sides: Sequence[int], rates: Sequence[float], length: float, counts: tuple[int, int]) -> None:
    """A ValueError where more edges are expected than can be numbered: Σ exp(−(D/λ)²) over all pairs is a product over the axes."""
    nodes = sum(counts)
    total = 1.0
    for side in sides:
        step = torch.arange(1, 1 + int(min(side - 1, 28 * length)), dtype=torch.float64)  # exp(−28²) underflows
        total *= side + 2 * float(((side - step) * torch.exp(-((step / length) ** 2))).sum())
    e, i = counts
    rate = (e * (e - 1) * rates[0] + e * i * (rates[1] + rates[2]) + i * (i - 1) * rates[3]) / max(1, nodes * (nodes - 1))
    refuse_too_large(f"L={tuple(sides)}, scale={tuple(rates)}, length={length}", edges=round(rate * (total - nodes)))


def _reach(sides: Sequence[int], length: float, highest: float) -> list[int]:
    """How far a pair may be apart along each axis."""
    if highest == 0:
        return [0] * len(sides)
    furthest = length * math.sqrt(max(0.0, _LEVELS * math.log(2) + math.log(highest)))
    reach = [int(min(side - 1, furthest)) for side in sides]
    if math.prod(2 * steps + 1 for steps in reach) > LIMIT:
        raise ValueError(f"L={tuple(sides)}, length={length} must give at most {LIMIT:,} distances, got more: choose smaller ones")
    return reach


def _offsets(reach: Sequence[int], length: float, highest: float) -> tuple[Tensor, Tensor, Tensor]:
    """Displacements target → source [K, d] that pairs may have, exp(−(D/λ)²) [K], and the l [K] with P ≤ 2⁻ˡ for all types."""
    axes = [torch.arange(-steps, steps + 1) for steps in reach]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(reach))
    decay = torch.exp(-(offset.double() / length).square().sum(1))
    some = (highest * decay >= 2.0**-_LEVELS) & offset.any(1)
    offset, decay = offset[some], decay[some]
    return offset, decay, -(highest * decay).log2().ceil().long()


def _edges(
    sides: Sequence[int], offsets: tuple[Tensor, Tensor, Tensor], rates: Sequence[float], node_type: Tensor, generator: torch.Generator
) -> Tensor:
    """Candidates drawn at the largest rate of their offset, rounded up to a power of 2, then kept at the rate of their pair."""
    offset, decay, level = offsets
    rate = torch.tensor(rates, dtype=torch.float64)
    found = [torch.empty(2, 0, dtype=torch.long)]
    for power in level.unique().tolist():
        inside = (level == power).nonzero().flatten()
        places = (torch.tensor(sides) - offset[inside].abs()).prod(1)  # where both ends are in the box
        behind = places.cumsum(0)
        hit = hits(int(behind[-1]), 2.0**-power, generator)
        which = torch.searchsorted(behind, hit, right=True)
        source, target = _decoded(hit - (behind - places)[which], offset[inside[which]], sides)
        chance = rate[2 * node_type[source] + node_type[target]] * decay[inside[which]] * 2.0**power
        kept = torch.rand(len(hit), dtype=torch.float64, generator=generator) < chance
        found.append(torch.stack([source, target])[:, kept])
    return torch.cat(found, dim=1)


def _decoded(place: Tensor, offset: Tensor, sides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(source, target) of the pairs that are ``offset`` apart, counted by ``place`` through the box of targets whose source is inside."""
    source, target = torch.zeros_like(place), torch.zeros_like(place)
    stride = 1
    for axis in reversed(range(len(sides))):
        step = offset[:, axis]
        x = place % (sides[axis] - step.abs()) + (-step).clamp(min=0)
        place = place // (sides[axis] - step.abs())
        source, target, stride = source + (x + step) * stride, target + x * stride, stride * sides[axis]
    return source, target
