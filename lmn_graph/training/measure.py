"""What a run reports about a machine: how well it predicts and how its dynamics behave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmn_graph import criticality
from lmn_graph.data.base import Rows, Split, Splits
from lmn_graph.losses.base import continued
from lmn_graph.machine import LatticeMachine, Output
from lmn_graph.training.batches import Batches

PROBE = 64  # samples on which the dynamics are measured, each of them
FLIPS = 8  # times, with other neurons
LYAPUNOV = (100, 10)  # steps measured, and left out before


@torch.no_grad()
def dynamics(
    machine: LatticeMachine, x: Tensor | Rows, *, output: Output | None = None, seed: int = 0, steps: int = 10
) -> dict[str, float]:
    """How activity spreads, from the state in which a normal run ends, under the same drive.

    For spiking rules ``branching_ratio``, twin runs with one flipped spike per sample; for others ``lyapunov``. The drawn sites
    depend on ``seed`` alone. For spiking rules also the share of neurons that are ``silent`` or ``saturated``: that fire for no
    sample in any step, for every sample in every step. ``output`` is what the machine made of ``x``, or of a stream that ends on it.
    """
    x = x[:PROBE]
    output = machine(x) if output is None else output
    activity = output.trajectory.activity
    generator = torch.Generator(device=activity.device).manual_seed(seed)
    if not machine.rule.spiking:
        state, drive, context = continued(output, machine=machine, x=x, samples=PROBE, steps=LYAPUNOV[0] + LYAPUNOV[1])
        growth = criticality.lyapunov(
            machine.rule, state, drive, steps=LYAPUNOV[0], discard=LYAPUNOV[1], generator=generator, context=context
        )
        return {"lyapunov": float(growth.mean()), "rate": float(activity.abs().mean())}
    state, drive, context = continued(output, machine=machine, x=x, samples=PROBE, steps=steps + 1)
    # Every sample several times, each time with another neuron: one flip a sample leaves a standard deviation of 0.03 to 0.1.
    times = max(1, min(FLIPS, 2**22 // (len(x) * machine.rule.num_nodes)))
    state = type(state)(*(field.repeat_interleave(times, 1) for field in state))
    drive, context = (None if part is None else part.repeat_interleave(times, 0) for part in (drive, context))
    damage = criticality.damage_spreading(machine.rule, state, drive, steps=steps, generator=generator, context=context)
    mean = activity.mean((0, 1))
    return {
        "branching_ratio": criticality.branching_ratio(damage),
        "rate": float(activity.mean()),
        "silent": float((mean == 0).float().mean()),
        "saturated": float((mean == 1).float().mean()),
    }


@torch.no_grad()
def quality(machine: LatticeMachine, batches: Batches, task: str, scale: Sequence[float] = (1.0,)) -> dict[str, float]:
    """Loss and accuracy of a classification; loss, R², root mean squared and mean absolute error of a regression, the two
    in units of the target, whose standard deviations are ``scale``. Of a machine that halts also how many steps samples took."""
    device = next(machine.parameters()).device
    predictions, targets, taken = [], [], []
    for x, y in batches:
        output = machine(x.to(device, non_blocking=True))
        predictions.append(output.prediction.cpu())
        targets.append(y)
        if output.trajectory.halting is not None:
            taken.append(output.trajectory.halting.steps.cpu())
    found = _quality(torch.cat(predictions), torch.cat(targets), task, scale)
    if taken:
        steps = torch.cat(taken).double()
        found |= {f"steps_{name}": float(getattr(steps, name)()) for name in ("mean", "min", "median", "max")}
    return found


def _quality(prediction: Tensor, target: Tensor, task: str, scale: Sequence[float]) -> dict[str, float]:
    if task == "classification":
        loss = torch.nn.functional.cross_entropy(prediction, target)
        return {"loss": float(loss), "accuracy": float((prediction.argmax(1) == target).double().mean())}
    error = prediction.double() - target.double()
    spread = (target.double() - target.double().mean(0)).square().sum()
    return {
        "loss": float(error.square().mean()),
        "r2": float(1 - error.square().sum() / spread) if spread > 0 else float("nan"),
        "rmse": float((error * error.new_tensor(scale)).square().mean().sqrt()),
        "mae": float((error * error.new_tensor(scale)).abs().mean()),
    }


def baselines(splits: Splits, part: str) -> dict[str, float]:
    """How well what needs no model predicts, for data that know it: ``baseline_majority``, an accuracy; or ``baseline_mean_rmse``,
    ``baseline_last_value_rmse`` and so on, in units of the target."""
    split: Split = getattr(splits, part)
    found = splits.encoder.baselines(split, splits.train)
    measured, kind = ("accuracy", "") if splits.task == "classification" else ("rmse", "_rmse")
    scale = splits.encoder.target.scale or (1.0,)
    return {f"baseline_{name}{kind}": _quality(guess, split.y, splits.task, scale)[measured] for name, guess in found.items()}


@torch.no_grad()
def steps_taken(machine: LatticeMachine, batches: Batches) -> Tensor | None:
    """How many steps every sample took before it halted, int64, or None for a machine that does not halt."""
    if machine.halting is None:
        return None
    device = next(machine.parameters()).device
    found = [machine.run(machine.inputs(x.to(device))).halting for x, _ in batches]
    return torch.cat([halting.steps.cpu() for halting in found if halting is not None])


@torch.no_grad()
def history(machine: LatticeMachine, x: Tensor, steps: int) -> Tensor:
    """Activity [B, T, N(, C)] of a longer run than the machine's own, for pictures. A drive per step is 0 after its last one."""
    inputs = machine.inputs(x)
    drive = inputs.drive
    if drive.dim() == 3 + (machine.rule.channels is not None) and drive.size(1) < steps:
        drive = torch.cat([drive, drive.new_zeros(len(drive), steps - drive.size(1), *drive.shape[2:])], 1)
    return machine.run(inputs._replace(drive=drive), steps=steps).activity
