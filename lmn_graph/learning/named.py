"""The ways to learn by the names that a configuration knows them by."""

from __future__ import annotations

from lmn_graph.learning.base import BPTT, LEARNING, LearningRule
from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.learning.snap import RTRL, SnAP


@LEARNING.register
def bptt() -> LearningRule:
    """Back-propagation through time: any machine, any loss."""
    return BPTT()


@LEARNING.register
def rtrl(*, chunk: int = 64) -> LearningRule:
    """Real-time recurrent learning of filter cells: the gradient of back-propagation through time from traces carried forward.

    Args:
        chunk: time steps whose states are held at once.
    """
    return RTRL(chunk=chunk)


@LEARNING.register
def snap(
    k: int = 1,
    *,
    leak: float = 0.0,
    gain_positive: float = 1.0,
    gain_negative: float = 1.0,
    subtraction: float = 0.0,
    trace_noise: float = 0.0,
    message_noise: float = 0.0,
    chunk: int = 64,
) -> LearningRule:
    """The sparse k-step approximation of real-time recurrent learning for filter cells, with the errors that a chip would make.

    Args:
        k: edges over which traces reach; 0 keeps those of a cell about itself.
        leak: share of a descendant trace that is lost in every step, in [0, 1).
        gain_positive: factor of positive messages as they are read.
        gain_negative: factor of negative messages as they are read.
        subtraction: relative error of a descendant trace before this step's part is taken off.
        trace_noise: noise of descendant traces in every step, relative to their root mean square.
        message_noise: noise of messages as they are read, relative to the root mean square of those that enter.
        chunk: time steps whose states are held at once.
    """
    return SnAP(k, perturbation=Perturbation(leak, gain_positive, gain_negative, subtraction, trace_noise, message_noise), chunk=chunk)


@LEARNING.register
def snap1(
    *,
    leak: float = 0.0,
    gain_positive: float = 1.0,
    gain_negative: float = 1.0,
    subtraction: float = 0.0,
    trace_noise: float = 0.0,
    message_noise: float = 0.0,
    chunk: int = 64,
) -> LearningRule:
    """The local rule of grid-neurons: SnAP with k = 1, traces of a cell and of its descendants.

    Args:
        leak, gain_positive, gain_negative, subtraction, trace_noise, message_noise: errors of a chip, as for ``snap``.
        chunk: time steps whose states are held at once.
    """
    return snap(1, **locals())
