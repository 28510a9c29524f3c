"""Generators are nested options of a rule, and the width of the context reaches the projector."""

from __future__ import annotations

import pytest

from lmn_graph.rules.generators import FactoredRouter, LowRankSiren, MLPRouter
from lmn_graph.training import configure, train
from lmn_graph.training.build import build_machine
from lmn_graph.training.configuration import to_yaml

SMALL = ("--topology.L", "3", "--projector.hidden", "8", "--projector.state_dim", "4")


def machine_of(*arguments):
    return build_machine(configure("hyper-lowrank", [], [*SMALL, *arguments]), (5,), 3)


def test_a_generator_and_its_options_are_chosen_by_name():
    """Another name drops the options of the one that it replaces."""
    kept = machine_of("--rule.generator.rank", "3").rule.generator
    assert isinstance(kept, LowRankSiren)
    assert (kept.rank, kept.u.omega) == (3, 5.0)
    swapped = machine_of("--rule.generator", "FactoredRouter", "--rule.generator.rank", "3").rule.generator
    assert isinstance(swapped, FactoredRouter)
    assert swapped.rank == 3
    named = machine_of("--rule.generator.name", "LowRankSiren", "--rule.generator.omega", "30").rule.generator
    assert named.u.omega == 30
    default = configure("tanh-lattice", [], ["--rule", "HypernetCA"])
    assert isinstance(build_machine(default, (5,), 3).rule.generator, MLPRouter)


def test_a_configuration_round_trips_through_yaml(tmp_path):
    config = configure("hyper-lowrank", [], ["--rule.generator", "EmitterListener"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert configure(None, [str(path)]) == config
    assert config["rule"]["generator"]["name"] == "EmitterListener"


def test_the_projector_gets_the_width_of_the_context():
    for width in (0, 7):
        machine = machine_of("--rule.context_dim", str(width))
        assert machine.projector.context_dim == machine.rule.context_dim == machine.rule.generator.context_dim == width
    other = machine_of("--rule", "TanhLattice")
    assert other.projector.context_dim == 0
    assert other.projector.weight_context is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rule.generator", "LowRankSire"), "unknown generator 'LowRankSire'; did you mean 'LowRankSiren'"),
        (("--rule.generator.ranks", "3"), "unknown option '--rule.generator.ranks'; did you mean '--rule.generator.rank'"),
        (("--rule.generator.rank", "many"), "option --rule.generator.rank must be an integer, got 'many'"),
        (("--rule.generator.context_dim", "3"), "unknown option '--rule.generator.context_dim'"),
    ],
)
def test_what_is_no_generator_or_no_option_of_it_is_answered_with_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        configure("hyper-lowrank", [], arguments)


def test_rank_0_and_a_projector_without_a_context_are_refused_before_anything_is_written(tmp_path):
    for arguments, message in (
        (("--rule.generator.rank", "0"), "rank must be an integer >= 1, got 0"),
        (("--projector", "Linear"), "projector must give the context of 32 numbers"),
        (("--machine.steps", "0"), r"machine\.steps must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            train(configure("hyper-lowrank", [], arguments), tmp_path / "run", smoke=True, progress=False)
        assert not (tmp_path / "run").exists()
