"""Every loss on the dynamics: its value, what it does at silence and saturation, where its minima are, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from small_machines import Given, TanhStandIn, machine, output_of

from lmn_graph.criticality import branching_ratio, covariance_slope, damage_spreading, drive_corrected_ratio, plain_ratio
from lmn_graph.halting import HaltingUnit
from lmn_graph.losses import (
    LOSSES,
    Activity,
    BranchingResponse,
    CovarianceSlope,
    DriveCorrectedRatio,
    Perturbation,
    PhysicsLoss,
    PlainRatio,
    PonderCost,
    StructuralLoss,
    TangentGrowth,
)
from lmn_graph.losses.drive_corrected_ratio import forced_sites

SPIKE_DRIVEN = DriveCorrectedRatio.__name__


def run(name: str, m=None, x=None):
    """A machine that the loss accepts, an input and its output."""
    if m is None:
        m = machine(projector=Given, reset="zero") if name == SPIKE_DRIVEN else machine()
    if name == PonderCost.__name__:
        m.halting = HaltingUnit(m.topology, bias=-1.0)
    if x is None:
        x = (torch.rand(5, 16) < 0.2).float() if isinstance(m.projector, Given) else torch.randn(5, 8)
    return m, x, m(x)


def prepared(name: str, m):
    """The term with its defaults, as before a training of the machine."""
    term = LOSSES[name]()
    term.prepare(m)
    return term


def test_the_registry_holds_every_term():
    assert set(LOSSES) == {
        "Activity",
        "BranchingResponse",
        "ClusteringLoss",
        "CovarianceSlope",
        "DriveCorrectedRatio",
        "ModularityLoss",
        "Perturbation",
        "PlainRatio",
        "PonderCost",
        "TangentGrowth",
    }


@pytest.mark.parametrize("name", LOSSES)
def test_every_term_trains_a_machine(name):
    """Defaults on a spiking machine: a finite scalar, a finite gradient for the rule, and a readable repr."""
    m, x, output = run(name)
    term = prepared(name, m)
    loss = term(output, machine=m, x=x)
    assert loss.shape == ()
    assert loss.isfinite()
    structural = isinstance(term, StructuralLoss)  # these maximise a number, of which there is no bound below
    assert structural or loss >= 0
    loss.backward()
    gradients = [parameter.grad for parameter in m.rule.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert ("on=" if structural else "target=") in repr(term) or isinstance(term, PonderCost)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {SPIKE_DRIVEN}))
def test_every_term_but_the_spike_driven_trains_a_rule_without_spikes(name):
    m, x, output = run(name, machine(TanhStandIn))
    loss = prepared(name, m)(output, machine=m, x=x)
    loss.backward()
    assert loss.isfinite()
    assert m.rule.weight.grad.isfinite().all()
    assert (m.rule.weight.grad != 0).any()


@pytest.mark.parametrize("level", [-1e4, -2.0, 2.0, 1e4], ids=["deep silence", "silence", "saturation", "deep saturation"])
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {SPIKE_DRIVEN}))
def test_silent_and_saturated_machines_are_finite(name, level):
    """No drive takes a term to nan, in its value or in a gradient."""
    m = machine(projector=Given, reset="zero")
    m, x, output = run(name, m, torch.full((3, 16), level))
    loss = prepared(name, m)(output, machine=m, x=x)
    loss.backward()
    assert loss.isfinite()
    for key, parameter in m.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_silent_and_saturated_rasters_give_the_documented_gradients(value):
    """Upwards from silence and downwards from saturation, or exactly 0 where the documentation says so."""
    raster = torch.full((2, 6, 4), value, requires_grad=True)
    silent = value == 0

    def gradient(term, m=None, x=None):
        return torch.autograd.grad(term(output_of(raster), machine=m, x=x), raster)[0]

    activity = gradient(Activity(0.1))
    assert (activity == activity[0, 0, 0]).all()
    assert (activity < 0).all() if silent else (activity > 0).all()

    plain = gradient(PlainRatio())
    assert (plain[:, 1:] == pytest.approx(-2 / 2 / 5)) if silent else (plain == 0).all()
    assert (gradient(CovarianceSlope()) == 0).all()

    m = machine(projector=Given, steps=6)
    driven = gradient(DriveCorrectedRatio(0.9), m, torch.zeros(2, 16)[:, :4].new_zeros(2, 4))
    inner = driven[:, 1:-1]
    assert (inner < 0).all() if silent else (inner > 0).all()


def test_plain_ratio_is_the_formula_and_its_flaw():
    """A steady raster is a minimum, at two spikes or at all of them; a fluctuating one at the critical point is not."""
    raster = (torch.rand(3, 9, 5) < 0.6).float()
    expected = (plain_ratio(raster) - 1).square().mean()
    torch.testing.assert_close(PlainRatio()(output_of(raster), machine=None, x=None), expected)
    for steady in (2, 25, 50):
        raster = torch.zeros(1, 40, 50)
        raster[:, :, :steady] = 1
        assert PlainRatio()(output_of(raster), machine=None, x=None) == 0
    counts = [50.0]
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        counts.append(float(torch.poisson(torch.tensor(max(counts[-1], 1.0)), generator=generator)))
    critical = torch.tensor(counts).view(1, -1, 1)
    assert PlainRatio()(output_of(critical), machine=None, x=None) > 0.005


def test_activity_is_the_squared_distance_of_the_rate():
    """Per sample, then the mean: a silent and a saturated sample do not make a half-active one."""
    raster = torch.stack([torch.zeros(5, 4), torch.ones(5, 4)])
    assert Activity(0.5)(output_of(raster), machine=None, x=None) == 0.25
    assert Activity(0.1)(output_of(raster), machine=None, x=None).item() == pytest.approx((0.01 + 0.81) / 2)
    signed = torch.tensor([[[0.5, -0.5]]])
    assert Activity(0.5)(output_of(signed), machine=None, x=None) == 0


def test_covariance_slope_is_the_estimator():
    raster = torch.rand(3, 30, 5)
    term = CovarianceSlope(0.8, lag=2, discard=7)
    expected = (covariance_slope(raster[:, 7:], lag=2) - 0.8).square().mean()
    torch.testing.assert_close(term(output_of(raster), machine=None, x=None), expected)
    unbiased = CovarianceSlope(0.8, unbias=True)
    expected = (covariance_slope(raster, unbias=True) - 0.8).square().mean()
    torch.testing.assert_close(unbiased(output_of(raster), machine=None, x=None), expected)


@pytest.mark.parametrize("delay", [0, 1, 3, 20])
def test_forced_spikes_arrive_after_the_delay(delay):
    """The drive spike of step t at t + delay: never earlier, cut where the run ends; a constant drive arrives at every step."""
    drive = (torch.rand(2, 8, 5) < 0.4).float()
    spikes = torch.zeros(2, 8, 5)
    sites = forced_sites(drive, spikes, inject="every", delay=delay)
    for t in range(8):
        assert torch.equal(sites[:, t], drive[:, t - delay] if t >= delay else torch.zeros(2, 5))
    constant = forced_sites(drive[:, 0], spikes, inject="every", delay=delay)
    assert torch.equal(constant, forced_sites(drive[:, :1].expand(2, 8, 5), spikes, inject="every", delay=delay))
    once = forced_sites(drive[:, 0], spikes, inject="first", delay=delay)
    assert once.sum() == (drive[:, 0].sum() if delay < 8 else 0)
    assert delay >= 8 or torch.equal(once[:, delay], drive[:, 0])
    assert forced_sites(drive[:, 0], spikes, inject="state", delay=delay).sum() == 0


def test_forced_spikes_of_a_spiking_lattice_are_where_it_was_driven():
    """SpikingSOC without synapses fires exactly where and when H says: the alignment that the ratio needs, and then it is 0."""
    m = machine(projector=Given, weight=0.0, learn_weight=False, reset="zero", decay=0.0, steps=9)
    drive = (torch.rand(4, 9, 16) < 0.3).float()
    output = m(drive)
    assert torch.equal(output.trajectory.activity, forced_sites(drive, output.trajectory.activity, inject="every", delay=1))
    term = DriveCorrectedRatio(0.4, rate_band=(0.0, 1.0))
    assert term(output, machine=m, x=drive).item() == pytest.approx(0.16)
    wrong = DriveCorrectedRatio(0.4, rate_band=(0.0, 1.0), delay=2)
    assert wrong(output, machine=m, x=drive) > 0.165


def test_drive_corrected_ratio_is_the_estimator_within_its_band():
    m = machine(projector=Given, weight=0.3, reset="zero")
    drive = (torch.rand(6, 12, 16) < 0.1).float()
    output = m(drive)
    spikes = output.trajectory.activity
    forced = spikes * forced_sites(drive, spikes, inject="every", delay=1)
    ratio = drive_corrected_ratio(spikes, forced)
    rate = spikes.mean((1, 2))
    inside = DriveCorrectedRatio(0.9, rate_band=(0.0, 1.0))(output, machine=m, x=drive)
    torch.testing.assert_close(inside, (ratio - 0.9).square().mean())
    low, high = rate.median().item(), rate.median().item() + 0.05
    outside = DriveCorrectedRatio(0.9, rate_band=(low, high))(output, machine=m, x=drive) - inside
    expected = ((low - rate).clamp(min=0) / low).square() + ((rate - high).clamp(min=0) / (1 - high)).square()
    assert outside > 0
    torch.testing.assert_close(outside, expected.mean())


def test_the_band_stops_a_saturated_lattice():
    """Without a ceiling an over-active raster satisfies the ratio as well as a critical one; the ceiling tells them apart."""
    m = machine(projector=Given, steps=30)
    saturated, drive = output_of(torch.ones(2, 30, 16)), torch.zeros(2, 16)
    drive[:, 0] = 1
    blind = DriveCorrectedRatio(0.95, rate_band=(0.0, 1.0))(saturated, machine=m, x=drive)
    assert blind < 1e-3
    assert DriveCorrectedRatio(0.95, rate_band=(0.0, 0.3))(saturated, machine=m, x=drive).item() == pytest.approx(1, abs=1e-3)


def test_perturbation_reads_the_ratio_that_runs_report():
    """Its growth is the branching ratio of damage_spreading from the final state; for other rules that of a tangent vector."""
    m = machine(weight=0.25, reset="zero", side=6)
    x = torch.randn(400, 8)
    output = m(x)
    growth = Perturbation(samples=400).growth(output, machine=m, x=x).item()
    damage = damage_spreading(m.rule, output.state, m.drive(x))
    assert growth == pytest.approx(branching_ratio(damage), abs=0.04)

    quiet = machine(TanhStandIn)
    x = torch.randn(7, 8)
    output = quiet(x)
    generator_state = torch.get_rng_state()
    growth = Perturbation(samples=4).growth(output, machine=quiet, x=x)
    torch.set_rng_state(generator_state)
    torch.testing.assert_close(growth, TangentGrowth(samples=4).growth(output, machine=quiet, x=x))
    assert growth.shape == (4,)


@pytest.mark.parametrize("name", ["BranchingResponse", "Perturbation", "TangentGrowth"])
@pytest.mark.parametrize("inject", ["every", "first", "state"])
def test_terms_that_run_on_take_the_machines_own_drive(name, inject, monkeypatch):
    """The drive goes on where it entered at every step, and only there; a per-step drive shorter than the run starts again."""
    import lmn_graph.losses.branching_response as response
    import lmn_graph.losses.perturbation as perturbation
    import lmn_graph.losses.tangent_growth as tangent

    seen = []
    for module, function in ((response, "branching_response"), (perturbation, "damage_growth"), (tangent, "tangent_growth")):
        monkeypatch.setattr(module, function, lambda rule, state, drive, **options: seen.append((state, drive)) or torch.ones(2))
    term = LOSSES[name](samples=2)
    m = machine(inject=inject)
    x = torch.randn(5, 8)
    output = m(x)
    term(output, machine=m, x=x)
    state, drive = seen[-1]
    assert torch.equal(state.v, output.state.v[:, :2])
    if inject == "every":
        torch.testing.assert_close(drive, m.drive(x)[:2])
    else:
        assert drive is None

    stepwise = machine(projector=Given, steps=4)
    x = torch.randn(5, 4, 16)
    term(stepwise(x), machine=stepwise, x=x)
    steps = seen[-1][1].shape[1]
    assert steps == (10 if name == "TangentGrowth" else 11)
    assert torch.equal(seen[-1][1], x[:2, torch.arange(steps) % 4])


@pytest.mark.parametrize("name", ["BranchingResponse", "Perturbation", "TangentGrowth", SPIKE_DRIVEN])
def test_the_projector_keeps_its_running_statistics(name):
    """A second pass over part of a batch is made in evaluation mode and leaves every training flag as it was."""
    m = machine(projector=Given, reset="zero")
    m.projector.norm = torch.nn.BatchNorm1d(16)
    m.projector.frozen = torch.nn.Dropout().eval()
    modes = []
    m.projector.forward = lambda x: modes.append(m.projector.training) or (x + 0 * m.projector.norm(x))
    x = (torch.rand(6, 16) < 0.3).float()
    output = m(x)
    before = m.projector.norm.running_mean.clone()
    prepared(name, m)(output, machine=m, x=x)
    assert modes == [True, False]
    assert torch.equal(m.projector.norm.running_mean, before)
    assert m.projector.norm.training
    assert not m.projector.frozen.training


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_every_term_can_be_validated(name, mode):
    """Validation loops run without gradient: a number, and no graph."""
    m, x, _ = run(name)
    with mode():
        loss = prepared(name, m)(m(x), machine=m, x=x)
    assert loss.isfinite()
    assert not loss.requires_grad


def test_a_term_of_ones_own_is_one_class():
    """A subclass gives per_sample and is averaged over the batch."""

    class Silence(PhysicsLoss):
        def per_sample(self, output, *, machine, x):
            return output.trajectory.activity.flatten(1).mean(1)

    assert Silence()(output_of(torch.stack([torch.zeros(3, 2), torch.ones(3, 2)])), machine=None, x=None) == 0.5


SHORT = output_of(torch.ones(2, 1, 16))
DRIVEN = machine(projector=Given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Activity(-0.1), "target must be .*>= 0"),
        (lambda: Activity("a"), "target must be a finite number"),
        (lambda: Activity(math.nan), "target must be a finite number"),
        (lambda: PlainRatio(math.inf), "target must be a finite number"),
        (lambda: PlainRatio(floor=0), "floor must be"),
        (lambda: CovarianceSlope(None), "target must be"),
        (lambda: CovarianceSlope(lag=0), "lag must be an integer >= 1"),
        (lambda: CovarianceSlope(lag=1.5), "lag must be an integer"),
        (lambda: CovarianceSlope(discard=-1), "discard must be an integer >= 0"),
        (lambda: CovarianceSlope(lag=2, unbias=True), "lag 1 only"),
        (lambda: DriveCorrectedRatio(1.1), r"target must be a finite number in \[0, 1\]"),
        (lambda: DriveCorrectedRatio(rate_band=0.1), "rate_band must be two numbers"),
        (lambda: DriveCorrectedRatio(rate_band=(0.1, 0.2, 0.3)), "rate_band must be two numbers"),
        (lambda: DriveCorrectedRatio(rate_band="ab"), "rate_band must be two numbers"),
        (lambda: DriveCorrectedRatio(rate_band=(0.3, 0.1)), "low < high"),
        (lambda: DriveCorrectedRatio(rate_band=(0.1, 1.5)), r"rate_band\[1\] must be"),
        (lambda: DriveCorrectedRatio(delay=-1), "delay must be"),
        (lambda: TangentGrowth(steps=0), "steps must be"),
        (lambda: TangentGrowth(samples=0), "samples must be"),
        (lambda: TangentGrowth(align=True), "align must be an integer"),
        (lambda: TangentGrowth(-1), "target must be"),
        (lambda: Perturbation(width=0), "width must be"),
        (lambda: BranchingResponse(samples=0), "samples must be"),
        (lambda: Perturbation(samples=2.0), "samples must be an integer"),
        (lambda: Perturbation(steps=False), "steps must be an integer"),
        (lambda: PlainRatio()(SHORT, machine=DRIVEN, x=None), "activity must cover at least 2 steps, got 1"),
        (lambda: CovarianceSlope(lag=3, discard=2)(SHORT, machine=DRIVEN, x=None), "at least 7 steps, got 1"),
        (lambda: DriveCorrectedRatio()(SHORT, machine=DRIVEN, x=torch.ones(2, 16)), "at least 2 steps, got 1"),
        (
            lambda: DriveCorrectedRatio()(output_of(torch.ones(2, 5, 16)), machine=DRIVEN, x=torch.full((2, 16), 0.5)),
            r"drive made of spikes, 0 or 1, .*got values in \[0.5, 0.5\]",
        ),
        (
            lambda: DriveCorrectedRatio()(output_of(torch.ones(2, 5, 16)), machine=DRIVEN, x=torch.ones(2, 4, 16)),
            "drive must be .* got",
        ),
        (
            lambda: DriveCorrectedRatio()(output_of(torch.ones(2, 5, 16)), machine=machine(TanhStandIn), x=torch.ones(2, 8)),
            "TanhStandIn does not spike",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
