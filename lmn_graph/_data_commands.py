"""Commands of ``lmn`` that make files for training, or text: preprocess, tokenize, generate."""

from __future__ import annotations

import argparse
import shlex
import sys

from lmn_graph._commands import helped, positional


def preprocess(known: argparse.Namespace, rest: list[str]) -> int:
    """Decode pictures into shards."""
    from lmn_graph.training import preprocess as preprocessing

    names, rest = positional(rest)
    if helped(known, names, preprocessing.describe_preprocess):
        return 0
    if len(names) != 1:
        raise ValueError(f"one data set or folder must be named, got {len(names)}: lmn preprocess DATA --out DIR")
    making = {"patch": known.patch, "shard_size": known.shard_size, "verify": known.verify, "progress": not known.quiet}
    try:
        folder, record = preprocessing.preprocess(names[0], known.out, rest, **making)
    except KeyboardInterrupt:
        print("lmn: interrupted; go on with the same command", file=sys.stderr)
        return 130
    made = [shard for of in record.shards.values() for shard in of.values()]
    size = sum(shard.size for shard in made)
    text = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
    print(f"{record.name}: {sum(shard.rows for shard in made):,} pictures in {len(made)} shards of {text} together")
    print(f"lmn train --data {shlex.quote(str(folder))} reads them")
    return 0


def tokenize(known: argparse.Namespace, rest: list[str]) -> int:
    """Turn text into files of tokens."""
    from lmn_graph.data import resolve, write_tokens
    from lmn_graph.training.configuration import configure_call, describe_call

    names, rest = positional(rest)
    if helped(known, names, lambda name: describe_call(resolve(name)[0], {"path"})):
        return 0
    if len(names) != 1 or known.out is None:
        raise ValueError("one text and a folder must be named: lmn tokenize DATA --out DIR")
    function, fixed = resolve(names[0])
    splits = function(**fixed, **configure_call(function, rest, {"path"}))
    folder = write_tokens(splits, known.out)  # type: ignore[arg-type]
    print(splits.describe())
    print(f"lmn train text-soc-tbptt --data {shlex.quote(str(folder))} reads them")
    return 0


def generate(known: argparse.Namespace, rest: list[str]) -> int:
    """Text that a run's best model makes up, printed as it comes."""
    from lmn_graph.data import TextEncoder
    from lmn_graph.generate import generate as generated
    from lmn_graph.training import open_run

    run = open_run(known.run)
    encoder = run.encoder
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"run {known.run!r} must be one on text, got one on {run.record['data']}")
    tokenizer = encoder.tokens
    prompt = tokenizer.encode(known.prompt).tolist()
    wishes = {"temperature": known.temperature, "top_k": known.top_k, "seed": known.seed}
    made, shown = list(prompt), ""
    for token in generated(run.machine(), prompt, known.tokens, **wishes):
        made.append(token)
        text = tokenizer.decode(made)
        if not text.startswith(shown):  # a piece of a word that the next one completes otherwise
            continue
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print()
    return 0
