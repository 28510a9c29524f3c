"""Training on Lightning, and the only place where it is used: configurations, runs, evaluation."""

from lmn_graph.training.configuration import configure, describe, to_yaml
from lmn_graph.training.run import Run, evaluate, open_run, resume, train

__all__ = ["Run", "configure", "describe", "evaluate", "open_run", "resume", "to_yaml", "train"]
