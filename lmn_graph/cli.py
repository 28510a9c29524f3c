"""The command ``lmn``: train, resume, evaluate, predict, generate, preprocess, tokenize, sweep, topology, list, doctor.

Nothing heavy is imported before a command is chosen.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lmn_graph._command_line import command_line

if TYPE_CHECKING:
    from lmn_graph.training import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return _dispatch(arguments)
    except KeyboardInterrupt:
        print("lmn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except (ValueError, ImportError, OSError) as error:
        if debug:
            raise
        if _was_interrupted(error):
            print("lmn: interrupted", file=sys.stderr)
            return 130
        text = " ".join(str(error).split())
        if text.startswith("unknown ") and "--plugin" not in text and any(word in _USES_RUN for word in arguments):
            text += "; a part that came from a plugin needs --plugin again"
        print(f"lmn: error: {text}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if debug or not (isinstance(error, MemoryError) or "allocate" in str(error)):
            raise
        print("lmn: error: not enough memory for a network of this size: use smaller options", file=sys.stderr)
        return 2


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is what a library made of Ctrl-C, as NumPy does while it is imported."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None) -> None:
    """A warning on one line, without the source that it comes from."""
    print(f"lmn: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    parser = command_line()
    known, rest = parser.parse_known_args(arguments)
    if known.version:
        import lmn_graph

        print(lmn_graph.__version__)
        return 0
    if known.command is None:
        if rest:
            raise ValueError(f"unknown command or option {rest[0]!r}; see lmn --help")
        parser.print_help()
        return 0
    if rest and known.command not in ("train", "preprocess", "tokenize", "sweep", "check-gradients", "topology"):
        raise ValueError(f"unknown option {rest[0]!r} of lmn {known.command}; see lmn {known.command} --help")
    # torch_geometric compiles a few helpers with torch.jit, and torch says so on every import.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    for plugin in known.plugin:
        from lmn_graph.plugins import import_plugin

        import_plugin(plugin)
    return _COMMANDS[known.command](known, rest)


def _train(known: argparse.Namespace, rest: list[str]) -> int:
    from pathlib import Path

    from lmn_graph.training import configure, describe, to_yaml, train

    presets, rest = _positional(rest)
    if len(presets) > 1:
        raise ValueError(f"unexpected argument {presets[1]!r}: one preset at most")
    preset = presets[0] if presets else "soc-lattice"
    if known.help:
        print(known.format_help())
        print(f"every option of the parts chosen here (swap a part, and its options are shown):\n{describe(preset, known.config, rest)}")
        return 0
    config = configure(preset, known.config, rest)
    if known.print_config:
        print(to_yaml(config), end="")
        return 0
    name = Path(known.config[-1]).stem if known.config and not presets else preset
    folder = Path(known.out) if known.out else _free_folder(Path("runs"), name)
    return _carry_out(folder, lambda: train(config, folder, smoke=known.smoke, progress=not known.quiet))


def _carry_out(folder: Any, job: Callable[[], Run]) -> int:
    """Train, and report; after Ctrl-C say how to go on."""
    try:
        run = job()
    except KeyboardInterrupt:
        if not (folder / "config.yaml").is_file():
            raise
        print(f"lmn: interrupted; go on with: lmn resume {shlex.quote(str(folder))}", file=sys.stderr)
        return 130
    _print_metrics(run.metrics)
    record = run.record
    print(record["data"])
    print(f"{record['parameters']:,} parameters, {record['epochs']} epochs, {record['seconds']:.0f} s; everything is in {run.folder}")
    return 0


def _positional(rest: list[str]) -> tuple[list[str], list[str]]:
    """What stands by itself, and the options with their values: every option takes one."""
    alone, options = [], []
    tokens = iter(rest)
    for token in tokens:
        if not token.startswith("--"):
            alone.append(token)
            continue
        options.append(token)
        if "=" not in token:
            options.extend([value] if (value := next(tokens, None)) is not None else [])
    return alone, options


def _free_folder(parent: Any, name: str) -> Any:
    return next(folder for number in range(1, 10**9) if not (folder := parent / f"{name}-{number:03d}").exists())


def _resume(known: argparse.Namespace, rest: list[str]) -> int:
    from pathlib import Path

    from lmn_graph.training import resume

    return _carry_out(Path(known.run), lambda: resume(known.run, progress=not known.quiet))


def _print_metrics(metrics: dict[str, float]) -> None:
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:{width}}  {value:.4f}")


def _evaluate(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.training import evaluate, open_run
    from lmn_graph.training.settings import StreamSettings

    run = open_run(known.run)
    _print_metrics(evaluate(run.machine(), run.splits(), known.split, stream=StreamSettings(**run.config["stream"])))
    return 0


def _predict(known: argparse.Namespace, rest: list[str]) -> int:
    import csv

    import torch

    from lmn_graph.training import open_run
    from lmn_graph.training.files import replacing

    run = open_run(known.run)
    encoder = run.encoder
    inputs = encoder.encode(known.file)
    prediction = run.machine().predict(inputs.x)
    header, rows = ["input", encoder.target.name], [[name, value] for name, value in zip(inputs.names, encoder.decode(prediction))]
    if encoder.target.classes is None and encoder.target.out_features > 1:
        header = ["input", *(f"{encoder.target.name}[{column}]" for column in range(encoder.target.out_features))]
        rows = [[name, *values] for name, values in rows]
    if run.record["task"] == "classification":
        header.append("probability")
        for row, probability in zip(rows, torch.softmax(prediction, 1).amax(1).tolist()):
            row.append(f"{probability:.4f}")
    if known.out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        return 0
    try:
        with replacing(known.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    except OSError as error:
        raise ValueError(f"--out {known.out!r} cannot be written: {error.strerror}") from None
    print(f"{len(rows)} predictions in {known.out}", file=sys.stderr)
    return 0


def _generate(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.data import TextEncoder
    from lmn_graph.generate import generate
    from lmn_graph.training import open_run

    run = open_run(known.run)
    encoder = run.encoder
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"run {known.run!r} must be one on text, got one on {run.record['data']}")
    tokenizer = encoder.tokens
    prompt = tokenizer.encode(known.prompt).tolist()
    wishes = {"temperature": known.temperature, "top_k": known.top_k, "seed": known.seed}
    made, shown = list(prompt), ""
    for token in generate(run.machine(), prompt, known.tokens, **wishes):
        made.append(token)
        text = tokenizer.decode(made)
        if not text.startswith(shown):  # a piece of a word that the next one completes otherwise
            continue
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print()
    return 0


def _preprocess(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.training.preprocess import describe_preprocess, preprocess

    names, rest = _positional(rest)
    if known.help:
        print(known.format_help())
        print(*(f"options of {name}:\n{describe_preprocess(name)}" for name in names), sep="\n")
        return 0
    if len(names) != 1:
        raise ValueError(f"one data set or folder must be named, got {len(names)}: lmn preprocess DATA --out DIR")
    making = {"patch": known.patch, "shard_size": known.shard_size, "verify": known.verify, "progress": not known.quiet}
    try:
        folder, record = preprocess(names[0], known.out, rest, **making)
    except KeyboardInterrupt:
        print("lmn: interrupted; go on with the same command", file=sys.stderr)
        return 130
    made = [shard for of in record.shards.values() for shard in of.values()]
    size = sum(shard.size for shard in made)
    text = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
    print(f"{record.name}: {sum(shard.rows for shard in made):,} pictures in {len(made)} shards of {text} together")
    print(f"lmn train --data {shlex.quote(str(folder))} reads them")
    return 0


def _tokenize(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.data import resolve, write_tokens
    from lmn_graph.training.configuration import configure_call, describe_call

    names, rest = _positional(rest)
    if known.help:
        print(known.format_help())
        print(*(f"options of {name}:\n{describe_call(resolve(name)[0], {'path'})}" for name in names), sep="\n")
        return 0
    if len(names) != 1 or known.out is None:
        raise ValueError("one text and a folder must be named: lmn tokenize DATA --out DIR")
    function, fixed = resolve(names[0])
    splits = function(**fixed, **configure_call(function, rest, {"path"}))
    folder = write_tokens(splits, known.out)  # type: ignore[arg-type]
    print(splits.describe())
    print(f"lmn train text-soc-tbptt --data {shlex.quote(str(folder))} reads them")
    return 0


def _sweep(known: argparse.Namespace, rest: list[str]) -> int:
    from pathlib import Path

    from lmn_graph.sweeps import SWEEPS

    names, rest = _positional(rest)
    if known.help:
        from lmn_graph.catalogue import catalogue

        print(known.format_help())
        print("named sweeps; docs/sweeps.md says what a file of your own holds:")
        print(*(f"  {name:<22} {text}" for name, text in catalogue()["sweeps"].items()), sep="\n")
        return 0
    if len(names) != 1:
        raise ValueError(f"one sweep must be named, got {len(names)}: lmn sweep NAME_OR_FILE; known: {', '.join(SWEEPS)}")
    seeds = _seeds(known.seeds)
    source, folder = names[0], Path(known.out) if known.out else None
    if source not in SWEEPS and (Path(source) / "sweep.yaml").is_file():
        source, folder = str(Path(source) / "sweep.yaml"), folder or Path(source)
    folder = folder or _free_folder(Path("runs"), Path(source).stem)
    from lmn_graph.training import sweep

    try:
        found = sweep(source, folder, arguments=rest, only=known.only, seeds=seeds, smoke=known.smoke, progress=not known.quiet)
    except KeyboardInterrupt:
        if not (folder / "sweep.yaml").is_file():
            raise
        again = [str(folder), *(f"--only={name}" for name in known.only), *(f"--plugin={plugin}" for plugin in known.plugin)]
        print(f"lmn: interrupted; go on with: lmn sweep {shlex.join(again)}", file=sys.stderr)
        return 130
    print(found.table)
    print(f"{len(found.records)} of {len(found.plan.runs)} runs are finished; everything is in {folder}")
    for run, message in found.failed.items():
        print(f"lmn: error: run {run!r} failed: {message}", file=sys.stderr)
    return 2 if found.failed else 0


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"option --seeds must be integers with commas between them, got {text!r}") from None


def _check_gradients(known: argparse.Namespace, rest: list[str]) -> int:
    import math

    from lmn_graph.training import configure
    from lmn_graph.training.check import check_gradients

    data, rows = check_gradients(configure(known.preset, [], rest), known.samples)
    print(data)
    width = max(len(row.name) for row in rows)
    print(
        f"{'gradient of':{width}}  {'numbers':>8}  {'cosine':>11}  {'angle':>7}  {'|g - r|/|r|':>11}  {'max |g - r|':>11}  {'max |r|':>9}"
    )
    for row in rows:
        angle = math.degrees(math.acos(max(-1.0, min(1.0, row.cosine)))) if math.isfinite(row.cosine) else math.nan
        numbers = f"{row.cosine:11.8f}  {angle:6.2f}°  {row.error:11.3e}  {row.largest:11.3e}  {row.reference:9.3e}"
        print(f"{row.name:{width}}  {row.size:8,}  {numbers}")
    return 0


def _topology(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.training.build import part
    from lmn_graph.training.configuration import configure_part, describe_part

    names, rest = _positional(rest)
    if known.help:
        print(known.format_help())
        print(*(f"options of {name}:\n{describe_part('topology', name)}" for name in names), sep="\n")
        return 0
    if len(names) != 1:
        from lmn_graph.catalogue import TOPOLOGIES

        raise ValueError(f"one topology must be named, got {len(names)}: lmn topology NAME; known: {', '.join(TOPOLOGIES)}")
    config = configure_part("topology", names[0], rest)
    from lmn_graph.report.numbers import numbers_table
    from lmn_graph.report.style import check_picture
    from lmn_graph.report.topology import draw_topology

    if known.out is not None:
        check_picture("--out", known.out)
    topology = part("topology", config)
    print(numbers_table(topology, nulls=known.nulls), flush=True)
    if known.out is not None:
        draw_topology(known.out, topology)
        print(f"drawn in {known.out}")
    return 0


def _list(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.catalogue import catalogue

    for kind, entries in catalogue().items():
        print(kind)
        for name, text in entries.items():
            print(f"  {name:<22} {text}")
    return 0


def _doctor(known: argparse.Namespace, rest: list[str]) -> int:
    from lmn_graph.catalogue import diagnosis

    for name, text in diagnosis().items():
        print(f"{name:<18} {text}")
    return 0


_USES_RUN = {"resume", "evaluate", "predict", "generate"}
_COMMANDS = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "predict": _predict,
    "generate": _generate,
    "preprocess": _preprocess,
    "tokenize": _tokenize,
    "sweep": _sweep,
    "check-gradients": _check_gradients,
    "topology": _topology,
    "list": _list,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
