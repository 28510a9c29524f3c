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

from lmn_graph import _data_commands
from lmn_graph._command_line import command_line
from lmn_graph._commands import helped, positional

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

    presets, rest = positional(rest)
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


def _sweep(known: argparse.Namespace, rest: list[str]) -> int:
    from pathlib import Path

    from lmn_graph.sweeps import SWEEPS

    names, rest = positional(rest)
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

    names, rest = positional(rest)
    if helped(known, names, lambda name: describe_part("topology", name)):
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
    "generate": _data_commands.generate,
    "preprocess": _data_commands.preprocess,
    "tokenize": _data_commands.tokenize,
    "sweep": _sweep,
    "check-gradients": _check_gradients,
    "topology": _topology,
    "list": _list,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
