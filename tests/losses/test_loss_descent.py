"""Descending a loss moves what it names to the target, from both sides, on processes whose branching ratio is known."""

from __future__ import annotations

import pytest
import torch
from small_machines import Given, TanhStandIn, machine

from lmn_graph.criticality import branching_ratio, damage_spreading, drive_corrected_ratio
from lmn_graph.losses import Activity, BranchingResponse, DriveCorrectedRatio, Perturbation, TangentGrowth
from lmn_graph.losses.drive_corrected_ratio import forced_sites


def descend(m, term, x, *, steps: int, rate: float) -> None:
    """Adam on the rule alone."""
    optimiser = torch.optim.Adam(m.rule.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        term(m(x), machine=m, x=x).backward()
        optimiser.step()


@pytest.mark.parametrize(("gain", "rate"), [(0.2, 0.006), (2.0, 0.02)], ids=["from below", "from above"])
def test_tangent_growth(gain, rate):
    """A tanh lattice: contracting or chaotic, it comes to the edge."""
    m = machine(lambda topology: TanhStandIn(topology, gain), side=6, steps=2)
    m.projector.linear.weight.data.mul_(0.1)
    m.projector.linear.bias.data.mul_(0.1)
    x = torch.randn(16, 8)
    term = TangentGrowth(samples=16)

    def growth() -> float:
        return torch.stack([term.growth(m(x), machine=m, x=x).detach().mean() for _ in range(8)]).mean().item()

    first = growth()
    assert (first < 0.5) if gain < 1 else (first > 1.2)
    descend(m, term, x, steps=200, rate=rate)
    assert growth() == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("weight", [0.0, 0.6], ids=["from silence", "from saturation"])
def test_activity(weight):
    """A silent and a saturated spiking lattice both come to the target rate."""
    m = machine(weight=weight, reset="zero", decay=0.9)
    m.projector.linear.weight.data.mul_(0.05)
    m.projector.linear.bias.data.fill_(0.0 if weight == 0 else 0.3)
    x = torch.randn(16, 8)
    first = m(x).trajectory.activity.mean().item()
    assert (first < 0.01) if weight == 0 else (first > 0.5)
    optimiser = torch.optim.Adam(m.parameters(), 0.02)
    for _ in range(200):
        optimiser.zero_grad()
        Activity(0.2)(m(x), machine=m, x=x).backward()
        optimiser.step()
    assert m(x).trajectory.activity.mean().item() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("gain", [0.1, 0.9], ids=["from below", "from above"])
def test_drive_corrected_ratio(gain):
    """Spike-driven lattice: the ratio of caused to causing spikes comes to m* with the rate inside the band, from either side."""
    m = machine(projector=Given, reset="zero", decay=0.3, steps=25, side=6, resources=False)
    m.rule.weight.data = gain * torch.randn_like(m.rule.weight)
    drive = (torch.rand(24, 25, 36) < 0.1).float()
    term = DriveCorrectedRatio(0.6, rate_band=(0.02, 0.4))

    def measured() -> tuple[float, float]:
        spikes = m(drive).trajectory.activity.detach()
        forced = spikes * forced_sites(drive, spikes, inject="every", delay=1)
        return drive_corrected_ratio(spikes, forced).mean().item(), spikes.mean().item()

    ratio, rate = measured()
    assert (ratio < 0.1) if gain < 0.5 else (ratio > 0.75)
    descend(m, term, drive, steps=200, rate=0.01)
    ratio, rate = measured()
    assert ratio == pytest.approx(0.6, abs=0.06)
    assert 0.02 <= rate <= 0.4


@pytest.mark.parametrize("gain", [0.05, 1.5], ids=["from below", "from above"])
@pytest.mark.parametrize(("term", "tolerance"), [(Perturbation(samples=128), 0.04), (BranchingResponse(samples=128), 0.12)])
def test_damage_comes_to_one(term, tolerance, gain):
    """A spiking lattice: the ratio of damage counted on fresh flips comes to 1; the linear response leaves a bias."""
    m = machine(reset="zero", decay=0.5, side=8, resources=False)
    m.rule.weight.data = gain * 0.4 * torch.randn_like(m.rule.weight)
    m.projector.linear.bias.data.fill_(0.2)
    x = torch.randn(128, 8)

    def counted() -> float:
        with torch.no_grad():
            state = m(x).state
            return branching_ratio(torch.cat([damage_spreading(m.rule, state, m.drive(x)) for _ in range(6)], 1))

    first = counted()
    assert (first < 0.9) if gain < 1 else (first > 1.1)
    descend(m, term, x, steps=80, rate=0.01)
    assert counted() == pytest.approx(1, abs=tolerance)
