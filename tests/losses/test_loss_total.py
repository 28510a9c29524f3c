"""The task losses and the weighted sum: added, weighted, burnt in, and returned one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_machines import machine, output_of
from torch.nn import functional

from lmn_graph.losses import Activity, BranchingResponse, CovarianceSlope, PhysicsLoss, PlainRatio, TaskLoss, TotalLoss


class Constant(PhysicsLoss):
    """A term of a known value that says whether it was asked with gradient."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))
        self.asked: list[bool] = []

    def per_sample(self, output, *, machine, x):
        self.asked.append(torch.is_grad_enabled())
        return self.value * torch.ones(4)


OUTPUT = output_of(torch.rand(4, 6, 5))
TARGET = torch.tensor([0, 1, 2, 0])
UNIFORM = torch.log(torch.tensor(3.0)).item()  # cross-entropy of the zero prediction of output_of


@settings(deadline=None, max_examples=30)
@given(weights=st.tuples(*[st.floats(0, 100)] * 3), values=st.tuples(*[st.floats(-10, 10)] * 2), burn_in=st.integers(0, 3))
def test_the_total_is_the_weighted_sum(weights, values, burn_in):
    """Added, never multiplied; the task enters after the burn-in; the parts come back unweighted."""
    gamma, alpha, beta = weights
    total = TotalLoss(
        None,
        {"first": Constant(values[0]), "second": Constant(values[1])},
        weights={"task": gamma, "first": alpha, "second": beta},
        burn_in=burn_in,
    )
    for epoch in (None, 0, 1, 2, 3):
        value, parts = total(OUTPUT, TARGET, machine=None, x=None, epoch=epoch)
        expected = (0 if epoch is not None and epoch < burn_in else gamma) * UNIFORM + alpha * values[0] + beta * values[1]
        assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert list(parts) == ["task", "first", "second"]
        assert [part.item() for part in parts.values()] == pytest.approx([UNIFORM, *values], rel=1e-6, abs=1e-6)
        assert not any(part.requires_grad for part in parts.values())


def test_a_term_without_weight_is_measured_only():
    """Its value is there to be logged; no gradient is computed for it."""
    idle, busy = Constant(2.0), Constant(3.0)
    total = TotalLoss(None, {"idle": idle, "busy": busy}, weights={"idle": 0})
    value, parts = total(OUTPUT, TARGET, machine=None, x=None)
    value.backward()
    assert (idle.asked, busy.asked) == ([False], [True])
    assert parts["idle"] == 2
    assert idle.value.grad is None
    assert busy.value.grad == 1


def test_terms_that_enter_at_some_batches_only():
    """At every third, three times as strongly; in between they are not even computed. Without a number of the batch, all of them."""
    term = Constant(2.0)
    total = TotalLoss(None, {"term": term}, weights={"term": 0.5}, terms_every=3)
    for step, extra in enumerate([3, 0, 0, 3, 0]):
        value, parts = total(OUTPUT, TARGET, machine=None, x=None, step=step)
        assert value.item() == pytest.approx(UNIFORM + extra)
        assert ("term" in parts) == (extra > 0)
    assert len(term.asked) == 2
    assert total(OUTPUT, TARGET, machine=None, x=None)[0].item() == pytest.approx(UNIFORM + 1)


def test_burn_in_leaves_the_readout_alone_but_on_the_graph():
    """Physics only: the readout's gradient is 0, not missing, and the rule's is the physics' alone."""
    m = machine()
    x = torch.randn(4, 8)
    total = TotalLoss(None, {"activity": Activity(0.3)}, burn_in=2)
    total(m(x), TARGET, machine=m, x=x, epoch=1)[0].backward()
    assert all((parameter.grad == 0).all() for parameter in m.readout.parameters())
    physics = m.rule.weight.grad.clone()
    m.zero_grad()
    Activity(0.3)(m(x), machine=m, x=x).backward()
    torch.testing.assert_close(m.rule.weight.grad, physics)
    total(m(x), TARGET, machine=m, x=x, epoch=2)[0].backward()
    assert any((parameter.grad != 0).any() for parameter in m.readout.parameters())


def test_defaults():
    """Cross-entropy, the branching response and the activity, each at weight 1, no burn-in: what the presets use."""
    total = TotalLoss()
    assert isinstance(total.task, TaskLoss)
    assert isinstance(total.terms["criticality"], BranchingResponse)
    assert isinstance(total.terms["activity"], Activity)
    assert total.weights == {"task": 1.0, "criticality": 1.0, "activity": 1.0}
    assert total.task_weight(0) == 1
    assert "burn_in=0" in repr(total)
    m = machine()
    x = torch.randn(4, 8)
    value, parts = total(m(x), TARGET, machine=m, x=x)
    value.backward()
    assert list(parts) == ["task", "criticality", "activity"]
    assert value.item() == pytest.approx((parts["task"] + parts["criticality"] + parts["activity"]).item(), rel=1e-5)
    assert TotalLoss(terms={}).weights == {"task": 1.0}


def test_validation_builds_no_graph():
    m = machine()
    x = torch.randn(4, 8)
    with torch.inference_mode():
        value, _ = TotalLoss()(m(x), TARGET, machine=m, x=x, epoch=0)
    assert not value.requires_grad


def test_terms_move_and_save_with_the_module():
    total = TotalLoss(terms={"plain": Constant(1.0), "slope": CovarianceSlope()}).double()
    assert total.terms["plain"].value.dtype == torch.float64
    assert set(total.state_dict()) == {"terms.plain.value"}


def test_classification_is_cross_entropy():
    scores = torch.randn(4, 3)
    torch.testing.assert_close(TaskLoss()(scores, TARGET), functional.cross_entropy(scores, TARGET))
    torch.testing.assert_close(TaskLoss()(scores, TARGET.to(torch.uint8)), functional.cross_entropy(scores, TARGET))
    smoothed = TaskLoss(label_smoothing=0.1)(scores, TARGET)
    log = scores.log_softmax(1)
    torch.testing.assert_close(smoothed, -(0.9 * log[torch.arange(4), TARGET] + 0.1 * log.mean(1)).mean())


def test_regression_is_the_mean_squared_error():
    """[B] and [B, 1] are the same target; nothing is broadcast to [B, B]."""
    values = torch.randn(4, 1)
    target = torch.randn(4)
    expected = (values[:, 0] - target).square().mean()
    torch.testing.assert_close(TaskLoss("regression")(values, target), expected)
    torch.testing.assert_close(TaskLoss("regression")(values, target.double().unsqueeze(1)), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TaskLoss("ranking"), "kind must be one of 'classification', 'regression'"),
        (lambda: TaskLoss(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\)"),
        (lambda: TaskLoss(label_smoothing=-0.1), "label_smoothing must be"),
        (lambda: TaskLoss("regression", label_smoothing=0.1), "for classification only"),
        (lambda: TaskLoss()(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])), "target must be in 0 … 2, got 0 … 3"),
        (lambda: TaskLoss()(torch.zeros(4, 3), torch.tensor([0, 1, 2, -1])), "target must be in 0 … 2"),
        (lambda: TaskLoss()(torch.zeros(4, 3), torch.zeros(4)), "integer class numbers, got torch.float32"),
        (lambda: TaskLoss()(torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool)), "integer class numbers"),
        (lambda: TaskLoss()(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long)), r"target must be \[B\]"),
        (lambda: TaskLoss()(torch.zeros(4), torch.zeros(4, dtype=torch.long)), r"target must be \[B\]"),
        (lambda: TaskLoss("regression")(torch.zeros(4, 2), torch.zeros(4)), "shape of the prediction"),
        (lambda: TotalLoss("mse"), "task must be a module"),
        (lambda: TotalLoss(terms=[PlainRatio()]), "terms must map names"),
        (lambda: TotalLoss(terms={"a": 1.0}), r"terms\['a'\] must be a PhysicsLoss"),
        (lambda: TotalLoss(terms={"task": PlainRatio()}), "terms must have identifiers as names"),
        (lambda: TotalLoss(terms={"a.b": PlainRatio()}), "terms must have identifiers as names"),
        (lambda: TotalLoss(terms={"items": PlainRatio()}), "terms must have identifiers as names"),
        (lambda: TotalLoss(weights={"activty": 1.0}), "'activty'; did you mean 'activity'"),
        (lambda: TotalLoss(weights={"activity": -1}), r"weights\['activity'\] must be"),
        (lambda: TotalLoss(weights={"activity": float("nan")}), r"weights\['activity'\] must be"),
        (lambda: TotalLoss(weights=[1.0]), "weights must map names"),
        (lambda: TotalLoss(burn_in=-1), "burn_in must be an integer >= 0"),
        (lambda: TotalLoss(burn_in=0.5), "burn_in must be an integer"),
        (lambda: TotalLoss(terms_every=0), "terms_every must be an integer >= 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
