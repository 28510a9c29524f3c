"""What the command ``lmn`` takes: its commands, their options and what they say about themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

Command = Callable[..., argparse.ArgumentParser]

EPILOG = """\
examples:
  lmn train                                    the digits, on an 8 x 8 x 8 lattice of spiking neurons
  lmn train --topology.L 10 --topology.radius 2 --rule.reset zero
  lmn train --data my.csv --data.target price  your own table, a folder of class folders, or an .npz
  lmn train mnist --data.root DIR --out runs/mnist
  lmn train --print_config > my.yaml; lmn train --config my.yaml
  lmn train --plugin my_rule.py --rule MyRule  a rule of your own
  lmn preprocess photos --size 64 --mode RGB --out shards; lmn train --data shards
  lmn sweep learning-rate --out runs/rates     a run per learning rate; the same again goes on
  lmn topology small_world --n 200 --k 6 --p 0.1 --out small_world.png
  lmn evaluate runs/soc-lattice-001; lmn predict runs/soc-lattice-001 new.csv
  lmn generate runs/text-soc-tbptt-001 --prompt "It was"
"""


class Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def command_line() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="lmn",
        description="Lattice Machine Networks: a graph, a rule and a number of steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str, add_help: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=add_help)
        added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
        added.add_argument(
            "--plugin", action="append", default=[], metavar="MODULE", help="import a module or .py file that registers parts"
        )
        return added

    _runs(command)
    _preprocess(command)
    _studies(command)
    command("list", "what is registered: topologies, rules, projectors, readouts, losses, surrogates, datasets, presets, sweeps")
    command("doctor", "versions, compiler, optional accelerators")
    return parser


def _runs(command: Command) -> None:
    train = command("train", "train a preset, with any part or option swapped", add_help=False)
    train.set_defaults(format_help=train.format_help)
    train.add_argument("-h", "--help", action="store_true", help="show this, and every option of the parts that are chosen")
    train.usage = "lmn train [PRESET] [options] [--PART NAME] [--PART.OPTION VALUE]"
    train.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML on top of the preset; later files win")
    train.add_argument("--out", metavar="DIR", help="run directory; default: the first free runs/PRESET-NNN")
    train.add_argument("--smoke", action="store_true", help="one epoch on 256 samples: does everything run?")
    train.add_argument("--print_config", action="store_true", help="print the whole configuration as YAML and stop")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    resume = command("resume", "go on with an interrupted run")
    resume.add_argument("run", metavar="RUN", help="run directory")
    resume.add_argument("--quiet", action="store_true", help="no progress bar")
    evaluate = command("evaluate", "measure a run's best model on its test split")
    evaluate.add_argument("run", metavar="RUN", help="run directory")
    evaluate.add_argument("--split", choices=("train", "validation", "test"), default="test")
    predict = command("predict", "predict for a file of the kind that the run was trained on")
    predict.add_argument("run", metavar="RUN", help="run directory")
    predict.add_argument("file", metavar="FILE", help="a table without the target, a picture or a folder of pictures, an .npz with x")
    predict.add_argument("--out", metavar="CSV", help="write here instead of to the terminal")
    generate = command("generate", "text that a run's best model makes up, as it comes")
    generate.add_argument("run", metavar="RUN", help="directory of a run on text")
    generate.add_argument("--prompt", default="\n", metavar="TEXT", help="what the text goes on from; default: a line break")
    generate.add_argument("--tokens", type=int, default=400, metavar="N", help="how many tokens; 400")
    generate.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0 takes the likeliest, 1 draws as predicted; 0.8")
    generate.add_argument("--top-k", "--top_k", type=int, metavar="K", help="draw among the K likeliest tokens only")
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn; 0")


def _preprocess(command: Command) -> None:
    preprocess = command(
        "preprocess", "decode pictures once, into shards that training reads without holding them in memory", add_help=False
    )
    preprocess.set_defaults(format_help=preprocess.format_help)
    preprocess.add_argument("-h", "--help", action="store_true", help="show this, and every option of the data, if they are named")
    preprocess.usage = "lmn preprocess DATA --out DIR [--patch P] [--shard-size N] [--OPTION VALUE], or lmn preprocess DIR --verify"
    preprocess.add_argument("--out", metavar="DIR", help="folder of the shards, to begin or, the same again, to go on with")
    preprocess.add_argument("--patch", type=int, metavar="P", help="cut pictures into patches of P x P pixels")
    preprocess.add_argument("--shard-size", "--shard_size", type=int, default=1024, metavar="N", help="pictures of a shard; 1024")
    preprocess.add_argument("--verify", action="store_true", help="compare every byte with the checksums")
    preprocess.add_argument("--quiet", action="store_true", help="no progress bar")
    tokenize = command("tokenize", "turn text into files of tokens once, which training maps into memory", add_help=False)
    tokenize.set_defaults(format_help=tokenize.format_help)
    tokenize.add_argument("-h", "--help", action="store_true", help="show this, and every option of the data, if they are named")
    tokenize.usage = "lmn tokenize DATA --out DIR [--tokenizer FILE] [--OPTION VALUE]"
    tokenize.add_argument("--out", metavar="DIR", help="folder of the tokens")


def _studies(command: Command) -> None:
    sweep = command("sweep", "train runs over the values of options, and compare them", add_help=False)
    sweep.set_defaults(format_help=sweep.format_help)
    sweep.add_argument("-h", "--help", action="store_true", help="show this, and the named sweeps")
    sweep.usage = "lmn sweep NAME_OR_FILE [options] [--PART NAME] [--PART.OPTION VALUE], or lmn sweep DIR to go on"
    sweep.add_argument("--out", metavar="DIR", help="folder of runs, tables and plots, to begin or to go on with; default: runs/NAME-NNN")
    sweep.add_argument("--only", action="append", default=[], metavar="SWEEP", help="this sweep of the file, and no other not named so")
    sweep.add_argument("--seeds", metavar="N,N,…", help="in place of the seeds of the file")
    sweep.add_argument("--smoke", action="store_true", help="every run one epoch on 256 samples: does everything run?")
    sweep.add_argument("--quiet", action="store_true", help="no progress")
    check = command("check-gradients", "compare the local rule of a preset with back-propagation through time, parameter by parameter")
    check.usage = "lmn check-gradients PRESET [--samples N] [--PART NAME] [--PART.OPTION VALUE]"
    check.add_argument("preset", metavar="PRESET", help="a preset that learns by a local rule, such as filter-mnist, or --learning snap1")
    check.add_argument("--samples", type=int, default=32, metavar="N", help="size of the batch; 32")
    topology = command("topology", "draw a topology and print its metrics", add_help=False)
    topology.set_defaults(format_help=topology.format_help)
    topology.add_argument("-h", "--help", action="store_true", help="show this, and every option of the topology that is named")
    topology.usage = "lmn topology NAME [--OPTION VALUE] [--out PICTURE]"
    topology.add_argument("--out", metavar="PICTURE", help="where to draw it: .png, .svg, .pdf; without it nothing is drawn")
    topology.add_argument("--nulls", type=int, default=3, metavar="R", help="rewired graphs of equal degrees to compare with; 3")
