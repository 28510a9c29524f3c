"""The text presets beside an LSTM and a GRU of as many parameters and as much training time, on novels: bits per character.

    python benchmarks/text_accuracy.py --text FOLDER [--hold-out persuasion] [--seconds 90] [--seeds 3] [--only NAME …] [--out FILE]
    python benchmarks/text_accuracy.py --text FOLDER --words 4000 --glove FILE --bert MATRIX.npy --bert-words vocab.txt --out words.jsonl

All novels but one are read character by character, or by their most frequent words; the last 5 % of each are for validation, the one held
out is the test: its first 100,000 characters, or all its words. Every model has the same loop: 32 lanes, windows of the preset's length,
AdamW, gradients clipped at 1, a learning rate that rises over a tenth of the time and falls along a cosine. Time is CPU seconds of the
training steps on one thread, as many for all. Rates and windows were chosen by the validation part, for the presets and the recurrent
networks from the same ones. Ablations: the state reset at every window; no losses on the dynamics. With words, GloVe's vectors are learned
on and those of a BERT are frozen, for the lattices and for LSTMs whose table is tied to the output. Finished runs are lines of FILE; the
same command again goes on, in another process beside it too (--workers), and prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmn_graph import data
from lmn_graph._vectors import TokenTable
from lmn_graph.machine import Output
from lmn_graph.streaming import detached
from lmn_graph.training import configure
from lmn_graph.training.build import build_loss, build_machine, count_parameters
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance
from lmn_graph.training.windows import StreamBatches, Window

PRESETS = ("text-soc-tbptt", "text-soc-glove", "text-soc-frozen", "text-soc-shared")
CHANGES = (", reset", ", no SOC loss")
LANES, TEST = 32, 100_000
RECURRENT = {"window": 32, "lr": 1e-2}


class Recurrent(nn.Module):
    """An LSTM or GRU between an embedding of 64 and a linear map, or with a given table between that and the same table."""

    def __init__(self, kind: str, vocabulary: int, hidden: int, table: TokenTable | None = None) -> None:
        super().__init__()
        self.table = TokenTable(vocabulary, 64) if table is None else table
        self.recurrent = (nn.LSTM if kind == "lstm" else nn.GRU)(self.table.width, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, vocabulary if table is None else self.table.width)
        self.bias = None if table is None else nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        found, state = self.recurrent(nn.functional.embedding(x.squeeze(-1), self.table.weight), state)
        found = self.linear(found)
        return (found if self.bias is None else nn.functional.linear(found / self.table.width**0.5, self.table.weight, self.bias)), state


def recurrent(kind: str, vocabulary: int, parameters: int, table: TokenTable | None = None) -> Recurrent:
    """The one with the number of parameters nearest to ``parameters``."""
    sizes = {hidden: count_parameters(Recurrent(kind, vocabulary, hidden, table)) for hidden in range(16, 400, 4)}
    return Recurrent(kind, vocabulary, min(sizes, key=lambda hidden: abs(sizes[hidden] - parameters)), table)


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
def bits(predict: Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]], stream: data.Stream, window: int, carry: bool = True) -> float:
    """Bits per character over a stream in 32 lanes."""
    total, count, state = 0.0, 0, None
    for part in StreamBatches(stream, StreamSettings(window), LANES):
        prediction, state = predict(part.x, state if carry else None, part.starts)
        total += float(nn.functional.cross_entropy(prediction.flatten(0, 1), part.y.flatten(), reduction="sum"))
        count += part.y.numel()
    return total / count * len(stream) / stream.characters / math.log(2)


def lattice(name: str, splits: data.StreamSplits, seed: int, seconds: float, vectors: dict[str, list[str]]) -> dict[str, Any]:
    """A preset, or one with ", reset" or ", no SOC loss" behind its name."""
    preset, _, change = name.partition(", ")
    config = configure(preset, [], ["--seed", str(seed), *vectors.get(name, [])])
    torch.manual_seed(seed)
    machine = build_machine(config, splits.in_shape, splits.out_features, splits.classes)
    loss = build_loss(config, "classification", 0, machine)
    window = config["stream"]["window"]
    settings = StreamSettings(window, back=2 * window if machine.memory is not None else None, carry=change != "reset")
    steps = itertools.count()

    def step(window: Window, state: Any) -> tuple[Tensor, Any]:
        output, state = advance(machine, window, state if settings.carry else None, settings)
        flat, y = output.prediction.flatten(0, 1), window.y.flatten()
        if change == "no SOC loss":
            return nn.functional.cross_entropy(flat, y), state
        flat_output = Output(flat, output.trajectory, output.trajectory.state)
        return loss(flat_output, y, machine=machine, x=window.x[:, -1], step=next(steps))[0], state

    def predict(x: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        output = machine.stream(x, state, starts=starts)
        return output.prediction, detached(output.state)

    batches = StreamBatches(splits.train, settings, LANES, shuffle=True, seed=seed)
    seen = train(machine, step, batches, seconds, config["optimizer"]["lr"])
    machine.eval()
    return measured(machine, predict, splits, seen / seconds, window, settings.carry)


def measured(
    model: nn.Module,
    predict: Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]],
    splits: data.StreamSplits,
    rate: float,
    window: int,
    carry: bool = True,
) -> dict[str, Any]:
    test = splits.test.first(TEST) if len(splits.test) == splits.test.characters else splits.test
    return {
        "parameters": count_parameters(model),
        "tokens a second": round(rate),
        "validation": bits(predict, splits.validation, window, carry),
        "test": bits(predict, test, window, carry),
    }


def network(name: str, splits: data.StreamSplits, seed: int, seconds: float, vectors: dict[str, list[str]]) -> dict[str, Any]:
    """``"lstm N"`` or ``"gru N"`` with about N parameters; with ", GloVe" or ", BERT frozen" behind, their table is tied to the output."""
    size, _, given = name.partition(", ")
    kind, parameters = size.split()
    torch.manual_seed(seed)
    table = None
    if given:
        parts = [part.removeprefix("--projector.") for part in vectors[given]]
        keys = dict(zip(parts[::2], parts[1::2]))
        table = TokenTable(splits.out_features, words=splits.classes, vectors=keys["vectors"], vector_words=keys.get("vector_words"))
        table.frozen = "frozen" in given
        table.requires_grad_(not table.frozen)
    model = recurrent(kind, splits.out_features, int(parameters), table)

    def step(window: Window, state: Any) -> tuple[Tensor, Any]:
        prediction, state = model(window.x, state)
        return nn.functional.cross_entropy(prediction.flatten(0, 1), window.y.flatten()), cut(state)

    batches = StreamBatches(splits.train, StreamSettings(int(RECURRENT["window"])), LANES, shuffle=True, seed=seed)
    seen = train(model, step, batches, seconds, RECURRENT["lr"])
    return measured(model, lambda x, state, starts: model(x, state), splits, seen / seconds, int(RECURRENT["window"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds."""
    lines = ["| model | parameters | tokens a second | validation | held-out novel | seeds |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        cells = [name, f"{own[0]['parameters']:,}", f"{statistics.fmean(row['tokens a second'] for row in own):,.0f}"]
        for key in ("validation", "test"):
            values = [row[key] for row in own]
            cells.append(f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""))
        lines.append("| " + " | ".join([*cells, str(len(own))]) + " |")
    return "\n".join(lines)


def plan(given: argparse.Namespace, splits: data.StreamSplits) -> tuple[list[str], dict[str, list[str]]]:
    """The names of all runs, and the options of those that are given vectors."""

    def size(preset: str, *options: str) -> int:
        machine = build_machine(configure(preset, [], options), splits.in_shape, splits.out_features, splits.classes)
        return round(count_parameters(machine), -4)

    if given.words is None:
        names = [*PRESETS, *(f"text-soc-tbptt{change}" for change in CHANGES)]
        return names + [f"{kind} {count}" for count in sorted({size(name) for name in PRESETS}) for kind in ("lstm", "gru")], {}
    glove = ["--projector.vectors", given.glove]
    bert = ["--projector.vectors", given.bert, "--projector.vector_words", given.bert_words]
    trained, frozen = f"lstm {size('text-soc-glove', *glove)}", f"lstm {size('text-soc-frozen', *bert)}"
    vectors = {"text-soc-glove": glove, "text-soc-frozen": bert, "GloVe": glove, "BERT frozen": bert}
    return ["text-soc-glove", "text-soc-frozen", "text-soc-shared", f"{trained}, GloVe", f"{frozen}, BERT frozen", trained], vectors


def work(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what has no line in the file and is begun by nobody; returns the lines."""
    torch.set_num_threads(1)
    options = {} if given.words is None else {"tokenizer": "words", "words": given.words}
    splits = data.text(given.text, hold_out=given.hold_out, **options)
    names, vectors = plan(given, splits)
    out = Path(given.out)
    for seed in range(given.seeds):
        for name in given.only or names:
            if any((row["model"], row["seed"]) == (name, seed) for row in lines(out)):
                continue
            begun = out.with_name(f"{out.name}.{name} {seed}".replace(" ", "_"))
            try:
                begun.touch(exist_ok=False)
            except FileExistsError:
                continue
            try:
                found = (lattice if name.startswith("text-") else network)(name, splits, seed, given.seconds, vectors)
                with out.open("a") as file:
                    file.write(json.dumps({"model": name, "seed": seed, "seconds": given.seconds, **found}) + "\n")
                print(name, seed, found, flush=True)
            finally:
                begun.unlink()
    return lines(out)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--hold-out", default="persuasion")
    parser.add_argument("--words", type=int, help="how many words instead of characters")
    parser.add_argument("--glove", help="vectors of words, in GloVe's text form")
    parser.add_argument("--bert", help="an .npy matrix of embeddings")
    parser.add_argument("--bert-words", help="its words, one a line")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side, of one thread each")
    parser.add_argument("--out", default="text_accuracy.jsonl")
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        list(pool.map(work, [given] * given.workers))
    print(table(lines(Path(given.out))))


if __name__ == "__main__":
    main()
