"""The estimators on a raster, held to processes whose branching ratio is known, and to what they define at silence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_processes import driven_branching, mean_and_error, thinned

from lmn_graph.criticality import covariance_slope, drive_corrected_ratio, mr_estimator, plain_ratio

PROCESSES = [(0.5, 20.0), (0.9, 10.0), (0.97, 2.0)]


@pytest.fixture(scope="module", params=PROCESSES, ids=lambda process: f"m={process[0]}")
def process(request):
    m, h = request.param
    return m, h, driven_branching(m, h, samples=24, steps=20_000, seed=1)


def test_drive_corrected_ratio_is_m(process):
    """E[A_{t+1} − H_{t+1} | A_t] = m A_t, to 3 standard errors that are small enough to reject any other process here."""
    m, _, run = process
    estimate, error = mean_and_error(drive_corrected_ratio(run.activity, run.forced))
    assert error < 1e-3
    assert abs(estimate - m) < 3 * error


def test_drive_corrected_ratio_is_m_in_a_transient():
    """A burst that dies out in twenty steps is not stationary, and m is still read."""
    run = driven_branching(0.8, 0.0, samples=400, steps=20, seed=2, start=500.0)
    estimate, error = mean_and_error(drive_corrected_ratio(run.activity, run.forced))
    assert error < 2e-3
    assert abs(estimate - 0.8) < 3 * error


def test_stationary_identity(process):
    """In a stationary run m_dc = 1 − ⟨H⟩/⟨A⟩ up to the two end bins: what makes m* = 1 − h/a the target to name."""
    _, _, run = process
    activity, forced = run.activity.squeeze(2), run.forced.squeeze(2)
    exact = 1 + (activity[:, -1] - activity[:, 0] - forced[:, 1:].sum(1)) / activity[:, :-1].sum(1)
    torch.testing.assert_close(drive_corrected_ratio(run.activity, run.forced), exact)
    assert (exact - (1 - forced.mean(1) / activity.mean(1))).abs().max() < 1e-2


def test_thinned_activity_needs_thinned_drive(process):
    """Seeing a tenth of the spikes leaves m where both are thinned; thinning A alone is the known mistake, and must be rejected."""
    m, _, run = process
    spontaneous = thinned(run.activity - run.forced, 0.1, seed=3)
    forced = thinned(run.forced, 0.1, seed=4)
    seen = spontaneous + forced
    estimate, error = mean_and_error(drive_corrected_ratio(seen, forced))
    assert abs(estimate - m) < 3 * error
    mistaken, _ = mean_and_error(drive_corrected_ratio(seen, run.forced))
    assert abs(mistaken - m) > 100 * error


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_covariance_slope_is_m_to_the_lag(process, lag):
    """r_k = m^k. The window's bias is known, −(1 + 3m)/T at lag 1, and below the tolerance here; another lag is not."""
    m, _, run = process
    estimate, error = mean_and_error(covariance_slope(run.activity, lag=lag))
    bias = (1 + 3 * m) / run.activity.shape[1] * lag
    assert error < 3e-3
    assert abs(estimate - m**lag) < 3 * error + bias
    assert abs(estimate - m ** (lag + 1)) > 3 * error + bias


def test_covariance_slope_under_subsampling(process):
    """r_k = m^k p / (p + (1 − p)(1 − m²)): exact, and far from m for p = 0.1."""
    m, _, run = process
    estimate, error = mean_and_error(covariance_slope(thinned(run.activity, 0.1, seed=5)))
    exact = m * 0.1 / (0.1 + 0.9 * (1 - m**2))
    assert abs(estimate - exact) < 3 * error + 4 / run.activity.shape[1]
    assert abs(exact - m) > 0.02


def test_unbias_takes_the_bias_of_a_short_window():
    """Thirty steps at m = 0.9 read about 0.77; the first-order correction leaves less than a fifth of that error."""
    run = driven_branching(0.9, 10.0, samples=4000, steps=130, seed=6)
    window = run.activity[:, 100:]
    raw, _ = mean_and_error(covariance_slope(window))
    corrected, error = mean_and_error(covariance_slope(window, unbias=True))
    assert raw < 0.9 - 2.5 * (1 + 3 * 0.9) / 29 / 3
    assert abs(corrected - 0.9) < 0.2 * (0.9 - raw) + 3 * error


def test_plain_ratio_cannot_tell_one_process_from_another(process):
    """Its mean is pulled to 1 by the drive whatever m is: the flaw for which it is kept as a reference only."""
    m, _, run = process
    estimate, error = mean_and_error(plain_ratio(run.activity).mean(1))
    assert abs(estimate - 1) < 0.05
    assert abs(estimate - m) > 3 * error


def test_mr_estimator_sees_through_subsampling(process):
    """A tenth of the spikes and one fit: m again, where r_1 itself is far off."""
    m, _, run = process
    lags = range(1, 60) if m > 0.8 else range(1, 8)
    fit = mr_estimator(thinned(run.activity, 0.1, seed=7), lags=lags)
    assert fit.branching_ratio == pytest.approx(m, abs=0.02 if m < 0.8 else 0.006)
    assert fit.amplitude == pytest.approx(0.1 / (0.1 + 0.9 * (1 - m**2)), rel=0.1)
    assert abs(fit.slopes[0] - m) > 0.02


def test_mr_estimator_fits_an_exact_geometric_series():
    """The fit itself, on slopes without noise, is exact to 1e-9 in m."""
    from lmn_graph.criticality.multistep import _fit

    lags = torch.arange(1, 30).double().numpy()
    for m in (0.0321, 0.5, 0.9, 0.9987, 1.0):
        assert _fit(lags, 0.3 * m**lags) == pytest.approx((m, 0.3), abs=1e-9, rel=1e-6)


def test_plain_ratio_by_hand():
    """Silence before a step: staying silent is 0, starting is 1; everywhere else it is the quotient."""
    counts = torch.tensor([0.0, 0, 3, 6, 1, 0, 0, 1]).view(1, 8, 1)
    expected = torch.tensor([[0.0, 1, 2, 1 / 6, 0, 0, 1]])
    torch.testing.assert_close(plain_ratio(counts), expected)
    signed = torch.tensor([[1.0, -1.0], [2.0, -4.0]]).view(1, 2, 2)
    torch.testing.assert_close(plain_ratio(signed), torch.tensor([[3.0]]))


ESTIMATORS = {
    "plain": plain_ratio,
    "slope": covariance_slope,
    "slope 2": lambda activity: covariance_slope(activity, lag=2),
    "slope unbiased": lambda activity: covariance_slope(activity, unbias=True),
    "driven": lambda activity: drive_corrected_ratio(activity, torch.zeros_like(activity)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_are_those_of_the_value(name):
    """gradcheck in float64, away from silence."""
    activity = 1 + torch.rand(3, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    assert torch.autograd.gradcheck(ESTIMATORS[name], activity.requires_grad_())


def test_drive_corrected_gradient_in_both_arguments():
    generator = torch.Generator().manual_seed(9)
    activity = (1 + torch.rand(2, 6, 3, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    forced = torch.rand(2, 6, 3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(drive_corrected_ratio, (activity, forced))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_constant_rasters_are_finite(name, dtype, value):
    """Silent, saturated and steady rasters: a finite value and a finite gradient from each estimator."""
    activity = torch.full((2, 50, 7), value, dtype=dtype, requires_grad=True)
    result = ESTIMATORS[name](activity)
    result.square().sum().backward()
    assert result.isfinite().all()
    assert activity.grad.isfinite().all()
    if name.startswith("slope"):
        assert (result == 0).all()
        assert (activity.grad == 0).all()
    else:
        assert ((result == 0) if value == 0 else ((result - 1).abs() < 1e-5)).all()


@pytest.mark.parametrize("name", ["plain", "driven"])
def test_silence_is_pushed_upwards(name):
    """Descending (ratio − 1)² from silence raises every spike after the first step."""
    activity = torch.zeros(1, 5, 3, requires_grad=True)
    (ESTIMATORS[name](activity) - 1).square().sum().backward()
    assert (activity.grad[:, 1:] < 0).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), rate=st.floats(0, 1), samples=st.integers(1, 4))
def test_every_sample_counts_for_itself(seed, rate, samples):
    """A dead and a saturated sample in the batch change nothing for the others, nor do they average out."""
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(samples, 12, 5, generator=generator) < rate).double()
    company = torch.cat([torch.zeros(1, 12, 5), spikes, torch.ones(1, 12, 5)]).double()
    for estimator in ESTIMATORS.values():
        torch.testing.assert_close(estimator(company)[1:-1], estimator(spikes), atol=1e-12, rtol=0)
    assert covariance_slope(spikes).abs().max() <= 12


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_slope_is_that_of_a_regression(scale, shift):
    """Scale and shift of the activity leave a slope where it is, and it is NumPy's."""
    import numpy as np

    counts = driven_branching(0.7, 5.0, samples=1, steps=200, seed=10).activity
    slope = covariance_slope(counts * scale + shift)
    a = counts.flatten().numpy()
    assert float(slope) == pytest.approx(np.polyfit(a[:-1], a[1:], 1)[0], abs=1e-6)


def test_booleans_integers_and_half_precision():
    """Counts stay exact: 512 spikes are more than bfloat16 can add up one by one."""
    spikes = torch.ones(1, 4, 512)
    spikes[:, ::2] = 0
    spikes[0, 0, :3] = 1
    reference = drive_corrected_ratio(spikes, torch.zeros_like(spikes))
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16):
        torch.testing.assert_close(drive_corrected_ratio(spikes.to(dtype), torch.zeros_like(spikes)), reference)


def test_channels_are_part_of_the_population():
    raster = torch.rand(2, 9, 3, 4, generator=torch.Generator().manual_seed(11))
    for estimator in ESTIMATORS.values():
        torch.testing.assert_close(estimator(raster), estimator(raster.flatten(2)))


RASTER = torch.ones(2, 10, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plain_ratio([1, 2]), "activity must be a tensor"),
        (lambda: plain_ratio(RASTER[0]), "activity must be .*at least one sample, got shape"),
        (lambda: plain_ratio(RASTER[:0]), "at least one sample"),
        (lambda: plain_ratio(RASTER[:, :1]), "at least 2 steps, got 1"),
        (lambda: plain_ratio(RASTER, floor=0), "floor must be .*> 0"),
        (lambda: plain_ratio(RASTER, floor=float("nan")), "floor must be a finite number"),
        (lambda: plain_ratio(RASTER.to(torch.complex64)), "real"),
        (lambda: covariance_slope(RASTER, lag=0), "lag must be an integer >= 1"),
        (lambda: covariance_slope(RASTER, lag=9), "at least 11 steps, got 10"),
        (lambda: covariance_slope(RASTER, lag=2, unbias=True), "lag 1 only"),
        (lambda: covariance_slope(RASTER[:, :5], unbias=True), "at least 6 steps"),
        (lambda: covariance_slope(RASTER, unbias=1), "unbias must be True or False"),
        (lambda: drive_corrected_ratio(RASTER, RASTER[:, :5]), "forced must have the shape of activity"),
        (lambda: drive_corrected_ratio(RASTER, None), "forced must be a tensor"),
        (lambda: mr_estimator(RASTER, lags=[1]), "at least two increasing"),
        (lambda: mr_estimator(RASTER, lags=[2, 1]), "at least two increasing"),
        (lambda: mr_estimator(RASTER, lags=[0, 1]), "lags must be an integer"),
        (lambda: mr_estimator(RASTER, lags=[1, 10]), "lags must be an integer"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_mr_estimator_of_nothing():
    """A silent or saturated raster has no slope: nan, no exception."""
    for value in (0.0, 1.0):
        fit = mr_estimator(torch.full((2, 40, 3), value))
        assert fit.branching_ratio != fit.branching_ratio
        assert len(fit.lags) == len(fit.slopes) == 4
