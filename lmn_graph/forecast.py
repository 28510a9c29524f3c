"""A series continued by a machine that hears its own forecasts."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_graph.machine import LatticeMachine, evaluating
from topologies import _checks


@torch.no_grad()
def closed_loop(machine: LatticeMachine, history: Tensor, steps: int) -> Tensor:
    r"""û_{n+1}, …, û_{n+steps} after u_1, …, u_n, each forecast being an input of the next.

    A machine on windows, for samples (w,) and one output, forecasts the value after the last w, one step ahead. A machine on streams, for
    samples (F,) and F outputs, is shown the history item by item and goes on from the state in which it is.

    Args:
        machine: forecasts one step ahead, in the units of ``history``: those that it was trained in.
        history: [B, n] for a machine on windows, n ≥ w; [B, n, F] for one on streams.
        steps: how many values to forecast, >= 1.

    Returns:
        [B, steps] or [B, steps, F].

    Raises:
        ValueError: if the history does not fit the machine or is not finite, or a forecast is not.
    """
    _checks.integer("steps", steps, minimum=1)
    shape, outputs = machine.projector.in_shape, machine.readout.out_features
    if not isinstance(history, Tensor) or not history.is_floating_point() or history.dim() not in (2, 3):
        got = f"{history.dtype} {list(history.shape)}" if isinstance(history, Tensor) else type(history).__name__
        raise ValueError(f"history must be a floating-point tensor [B, n] or [B, n, F], got {got}")
    if not bool(history.isfinite().all()):
        raise ValueError("history must be finite, got NaN or infinity")
    if history.dim() == 2 and (len(shape) != 1 or outputs != 1 or history.size(1) < shape[0]):
        raise ValueError(
            f"history must be [B, n], n >= the window, for a machine from (w,) to 1, got {list(history.shape)}, {shape}, {outputs}"
        )
    if history.dim() == 3 and (shape != history.shape[2:] or outputs != history.size(2) or not history.size(1)):
        raise ValueError(f"history must be [B, n, F], n >= 1, for a machine from (F,) to F, got {list(history.shape)}, {shape}, {outputs}")
    with evaluating(machine):
        found = _windows(machine, history, steps) if history.dim() == 2 else _stream(machine, history, steps)
    if not bool(found.isfinite().all()):
        raise ValueError("the forecast became infinite or NaN: the machine is not stable in closed loop")
    return found


def _windows(machine: LatticeMachine, history: Tensor, steps: int) -> Tensor:
    width = machine.projector.in_shape[0]
    series = history[:, history.size(1) - width :]
    for _ in range(steps):
        series = torch.cat([series, machine(series[:, -width:]).prediction], 1)
    return series[:, width:]


def _stream(machine: LatticeMachine, history: Tensor, steps: int) -> Tensor:
    output = machine.stream(history)
    found = [output.prediction[:, -1:]]
    while len(found) < steps:
        output = machine.stream(found[-1], output.state)
        found.append(output.prediction)
    return torch.cat(found, 1)
