"""The text presets beside an LSTM and a GRU of as many parameters and as much training time, on novels: bits per character.

    python benchmarks/text_accuracy.py --text FOLDER [--hold-out persuasion] [--seconds 90] [--seeds 3] [--only NAME …] [--out FILE]

All novels but one are read character by character; the last 5 % of each are for validation, the one held out is the test, its first
100,000 characters. Every model has the same loop: windows of 64 characters, 32 lanes, AdamW, gradients clipped at 1, a learning rate that
rises over a tenth of the time and falls along a cosine. Time is CPU seconds of the training steps on one thread, as many for all.
Ablations: the state reset at every window; no losses on the dynamics. Finished runs are lines of FILE; the same command again goes on,
and prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmn_graph import data
from lmn_graph.machine import Output
from lmn_graph.streaming import detached
from lmn_graph.training import configure
from lmn_graph.training.build import build_loss, build_machine, count_parameters
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance
from lmn_graph.training.windows import StreamBatches, Window

PRESETS = ("text-soc-tbptt", "text-soc-glove", "text-soc-frozen", "text-soc-shared")
WINDOW, LANES, TEST = 64, 32, 100_000
RATES = {"lstm": 5e-3, "gru": 5e-3}


class Recurrent(nn.Module):
    """An LSTM or GRU between an embedding of 64 and a linear map."""

    def __init__(self, kind: str, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 64)
        self.recurrent = (nn.LSTM if kind == "lstm" else nn.GRU)(64, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, vocabulary)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        found, state = self.recurrent(self.embedding(x.squeeze(-1)), state)
        return self.linear(found), state


def recurrent(kind: str, vocabulary: int, parameters: int) -> Recurrent:
    """The one with the number of parameters nearest to ``parameters``."""
    sizes = {hidden: count_parameters(Recurrent(kind, vocabulary, hidden)) for hidden in range(16, 400, 4)}
    return Recurrent(kind, vocabulary, min(sizes, key=lambda hidden: abs(sizes[hidden] - parameters)))


def cut(state: Any) -> Any:
    """Without gradient."""
    return tuple(part.detach() for part in state) if type(state) is tuple else state.detach()


def train(model: nn.Module, step: Callable[[Window, Any], tuple[Tensor, Any]], batches: StreamBatches, seconds: float, rate: float) -> int:
    """Train for so much CPU time; returns how many characters were seen."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    used, seen, state = 0.0, 0, None
    while True:
        for window in batches:
            share = min(1.0, used / seconds)
            factor = max(0.02, share / 0.1 if share < 0.1 else 0.5 * (1 + math.cos(math.pi * (share - 0.1) / 0.9)))
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            started = time.process_time()
            loss, state = step(window, None if window.first else state)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            used += time.process_time() - started
            seen += window.y.numel()
            if used > seconds:
                return seen


@torch.no_grad()
def bits(predict: Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]], stream: data.Stream, carry: bool) -> float:
    """Bits per character over a stream in 32 lanes."""
    total, count, state = 0.0, 0, None
    for window in StreamBatches(stream, StreamSettings(WINDOW), LANES):
        prediction, state = predict(window.x, state if carry else None, window.starts)
        total += float(nn.functional.cross_entropy(prediction.flatten(0, 1), window.y.flatten(), reduction="sum"))
        count += window.y.numel()
    return total / count / math.log(2)


def lattice(name: str, splits: data.StreamSplits, seed: int, seconds: float) -> dict[str, Any]:
    """A preset, or one with ", reset" or ", no SOC loss" behind its name."""
    preset, _, change = name.partition(", ")
    config = configure(preset, [], ["--seed", str(seed)])
    torch.manual_seed(seed)
    machine = build_machine(config, splits.in_shape, splits.out_features, splits.classes)
    loss = build_loss(config, "classification", 0, machine)
    settings = StreamSettings(WINDOW, back=2 * WINDOW if machine.memory is not None else None, carry=change != "reset")

    def step(window: Window, state: Any) -> tuple[Tensor, Any]:
        output, state = advance(machine, window, state if settings.carry else None, settings)
        flat, y = output.prediction.flatten(0, 1), window.y.flatten()
        if change == "no SOC loss":
            return nn.functional.cross_entropy(flat, y), state
        flat_output = Output(flat, output.trajectory, output.trajectory.state)
        return loss(flat_output, y, machine=machine, x=window.x[:, -1])[0], state

    def predict(x: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        output = machine.stream(x, state, starts=starts)
        return output.prediction, detached(output.state)

    batches = StreamBatches(splits.train, settings, LANES, shuffle=True, seed=seed)
    seen = train(machine, step, batches, seconds, config["optimizer"]["lr"])
    machine.eval()
    return {
        "parameters": count_parameters(machine),
        "characters a second": round(seen / seconds),
        "validation": bits(predict, splits.validation, settings.carry),
        "test": bits(predict, splits.test.first(TEST), settings.carry),
    }


def network(name: str, splits: data.StreamSplits, seed: int, seconds: float) -> dict[str, Any]:
    """``"lstm N"`` or ``"gru N"`` with about N parameters."""
    kind, size = name.split()
    torch.manual_seed(seed)
    model = recurrent(kind, splits.out_features, int(size))

    def step(window: Window, state: Any) -> tuple[Tensor, Any]:
        prediction, state = model(window.x, state)
        return nn.functional.cross_entropy(prediction.flatten(0, 1), window.y.flatten()), cut(state)

    seen = train(model, step, StreamBatches(splits.train, StreamSettings(WINDOW), LANES, shuffle=True, seed=seed), seconds, RATES[kind])
    return {
        "parameters": count_parameters(model),
        "characters a second": round(seen / seconds),
        "validation": bits(lambda x, state, starts: model(x, state), splits.validation, True),
        "test": bits(lambda x, state, starts: model(x, state), splits.test.first(TEST), True),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds."""
    lines = ["| model | parameters | characters a second | validation | held-out novel | seeds |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        cells = [name, f"{own[0]['parameters']:,}", f"{statistics.fmean(row['characters a second'] for row in own):,.0f}"]
        for key in ("validation", "test"):
            values = [row[key] for row in own]
            cells.append(f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""))
        lines.append("| " + " | ".join([*cells, str(len(own))]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--hold-out", default="persuasion")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", default="text_accuracy.jsonl")
    given = parser.parse_args()
    torch.set_num_threads(1)
    splits = data.text(given.text, hold_out=given.hold_out)
    sizes = {}
    for preset in PRESETS:
        sizes[preset] = count_parameters(build_machine(configure(preset), splits.in_shape, splits.out_features, splits.classes))
    names = [*PRESETS, "text-soc-tbptt, reset", "text-soc-tbptt, no SOC loss"]
    names += [f"{kind} {size}" for size in sorted({round(size, -4) for size in sizes.values()}) for kind in ("lstm", "gru")]
    out = Path(given.out)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for seed in range(given.seeds):
        for name in given.only or names:
            if any((row["model"], row["seed"]) == (name, seed) for row in rows):
                continue
            found = (lattice if name in names[: len(PRESETS) + 2] else network)(name, splits, seed, given.seconds)
            rows.append({"model": name, "seed": seed, "seconds": given.seconds, **found})
            with out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    print(splits.describe())
    print(table(rows))


if __name__ == "__main__":
    main()
