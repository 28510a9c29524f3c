"""How far the local rule of a configuration agrees with back-propagation through time, at its initial parameters."""

from __future__ import annotations

from lmn_graph.data import StreamSplits
from lmn_graph.learning import BPTT, Agreement, compare
from lmn_graph.training import build
from lmn_graph.training.configuration import Config
from lmn_graph.training.fit import seeded
from lmn_graph.training.splits import DataReader
from topologies import _checks


def check_gradients(config: Config, samples: int = 32) -> tuple[str, list[Agreement]]:
    """What the data are, and the agreement of every parameter's gradient and of all together, in double precision.

    Args:
        config: from :func:`lmn_graph.training.configuration.configure`. Where its data are not there, a specimen stands in for them.
        samples: size of the batch, >= 1; at most 256.

    Raises:
        ValueError: if the configuration learns by back-propagation, or its rule cannot train the machine.
    """
    _checks.integer("samples", samples, minimum=1, maximum=256)
    learning = build.build_learning(config)
    if isinstance(learning, BPTT):
        raise ValueError("learning must be a local rule to be compared with back-propagation, such as --learning snap1, got bptt")
    splits, _ = DataReader().read(config, smoke=True)
    if isinstance(splits, StreamSplits):
        raise ValueError(f"data must be rows, each with a target, to compare gradients on, got a stream: {splits.describe()}")
    with seeded(config["seed"]):
        machine = build.build_machine(config, splits.in_shape, splits.out_features, splits.classes).double()
        loss = build.build_loss(config, splits.task, 0, machine).double()
        x, y = (part[:samples] for part in splits.train.tensors)
        return splits.describe(), compare(machine, x.double(), y.double() if y.is_floating_point() else y, learning, loss=loss)
