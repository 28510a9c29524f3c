"""What a chip would get wrong when it learns: errors of the quantities that a local rule measures."""

from __future__ import annotations

from dataclasses import dataclass

from topologies import _checks


@dataclass(frozen=True)
class Perturbation:
    r"""Errors on the learning path; what the cells compute is untouched.

    Args:
        leak: δ in [0, 1): a descendant trace keeps :math:`a (1 - \delta)` of itself in a step.
        gain_positive: factor of a message that is > 0 where it is read; what is passed on carries it.
        gain_negative: the same for other messages.
        subtraction: δ: a descendant trace is read :math:`(1 + \delta)` times before this step's part is taken off.
        trace_noise: σ ≥ 0: normal noise added to every descendant trace after every step, σ times the root mean square of the traces
            of its kind in that sample; where traces feed each other (k > 1, or a graph with shortcuts), of those fed together.
        message_noise: σ ≥ 0: normal noise added to a message each time it is read, σ times the root mean square of the messages that
            enter at the nodes which are read, in that step and sample.

    Raises:
        ValueError: if a number is out of range.

    Source: the measurement-robustness study of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """

    leak: float = 0.0
    gain_positive: float = 1.0
    gain_negative: float = 1.0
    subtraction: float = 0.0
    trace_noise: float = 0.0
    message_noise: float = 0.0

    def __post_init__(self) -> None:
        _checks.number("leak", self.leak, minimum=0)
        if self.leak >= 1:
            raise ValueError(f"leak must be a number in [0, 1), got {self.leak}")
        for name in ("gain_positive", "gain_negative", "subtraction"):
            _checks.number(name, getattr(self, name))
        for name in ("trace_noise", "message_noise"):
            _checks.number(name, getattr(self, name), minimum=0)

    @property
    def is_none(self) -> bool:
        """Whether nothing is perturbed."""
        return self == Perturbation()
