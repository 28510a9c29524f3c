"""What the public implementation of grid-neurons computes: its own numbers, in double precision, from its own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import topologies
from lmn_graph import LatticeMachine, rollout
from lmn_graph.learning import BPTT, Perturbation, SnAP
from lmn_graph.losses import TaskLoss, TotalLoss
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import FilterGrid

CASES = json.loads((Path(__file__).parent / "source_gradients.json").read_text(encoding="utf-8"))["cases"]
every_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
every_loss = pytest.mark.parametrize("mode", ["sum", "per_t"])
PERTURBED = CASES["4x4 T=5"]["perturbed"]
NAMES = {"delta_leak": "leak", "msg_gain_pos": "gain_positive", "msg_gain_neg": "gain_negative", "delta_sub": "subtraction"}


def machine_of(case):
    topology, steps = topologies.raster(case["rows"], case["cols"]), case["steps"]
    rule = FilterGrid(topology, time_step=case["dt"]).double()
    with torch.no_grad():
        for name, values in case["parameters"].items():
            getattr(rule, name).copy_(torch.tensor(values, dtype=torch.float64))
    projector = PROJECTORS["Stream"]((steps, case["rows"]), topology)
    machine = LatticeMachine(topology, projector, rule, READOUTS["Shoreline"](topology, case["cols"], steps), steps=steps)
    return machine, torch.tensor(case["sequence"], dtype=torch.float64)[None], torch.tensor([case["target"]])


def loss_of(mode):
    return TotalLoss(TaskLoss(), {}, every_step=mode == "per_t")


def assert_gradients(machine, expected):
    for name, values in expected.items():
        found = getattr(machine.rule, name).grad
        want = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(torch.zeros_like(want) if found is None else found, want, rtol=1e-10, atol=1e-14)


@every_case
def test_outputs_and_states_are_the_sources(case, compiler):
    machine, x, _ = machine_of(case)
    found = machine(x)
    shore = found.trajectory.activity[0][:, machine.topology.output_index]
    torch.testing.assert_close(shore, torch.tensor(case["rates"], dtype=torch.float64), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.state.s[:, 0], torch.tensor(case["final"]["s"], dtype=torch.float64), rtol=1e-12, atol=1e-14)
    plain = rollout(machine.rule, machine.drive(x), steps=case["steps"], record=("s",))
    torch.testing.assert_close(plain.recorded["s"][0, -1], found.state.s[:, 0])


@every_loss
@every_case
def test_back_propagation_is_the_sources(case, mode, compiler):
    machine, x, y = machine_of(case)
    learned = BPTT().gradients(machine, x, y, loss=loss_of(mode))
    assert float(learned.loss) == pytest.approx(case["losses"][mode], rel=1e-12)
    assert_gradients(machine, case["gradients"][mode]["bptt"])


@pytest.mark.parametrize("chunk", [64, 2])
@every_loss
@every_case
def test_the_local_rule_is_the_sources(case, mode, chunk, compiler):
    """At once, from traces, and from traces over chunks shorter than the sequence."""
    machine, x, y = machine_of(case)
    learned = SnAP(1, chunk=chunk).gradients(machine, x, y, loss=loss_of(mode))
    assert float(learned.loss) == pytest.approx(case["losses"][mode], rel=1e-12)
    assert_gradients(machine, case["gradients"][mode]["local"])


@every_loss
@pytest.mark.parametrize("name", list(PERTURBED))
def test_errors_of_what_is_measured_act_as_in_the_source(name, mode, compiler):
    machine, x, y = machine_of(CASES["4x4 T=5"])
    perturbation = Perturbation(**{NAMES[field]: value for field, value in PERTURBED[name]["fields"].items()})
    SnAP(1, perturbation=perturbation).gradients(machine, x, y, loss=loss_of(mode))
    assert_gradients(machine, PERTURBED[name]["local"][mode])
