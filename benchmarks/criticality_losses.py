"""Which criticality term to train with: every one on the same lattice, by what it does to accuracy and to the dynamics.

    OMP_NUM_THREADS=1 python benchmarks/criticality_losses.py [--seeds 3] [--weights 1 4]

The preset soc-lattice (digits, three epochs of burn-in on the dynamics alone, then the task) with each criticality term and weight,
and without the label smoothing and the heavier weight decay that the preset has got since. ``DriveCorrectedRatio`` is left out: it
needs a drive made of spikes, and the preset's drive is a current. The branching ratio is counted on true spikes,
(damage₁₀/damage₀)^{1/10} over 4096 flipped spikes on test rows, whatever the term measures itself.
"""

from __future__ import annotations

import argparse

from accuracy import Trained, run, spread, table

TERMS = {
    "none": [],
    "PlainRatio": [],
    "CovarianceSlope": [],
    "TangentGrowth": ["--criticality.samples", "16"],
    "Perturbation": ["--criticality.samples", "16"],
    "BranchingResponse": ["--criticality.samples", "16"],
}
FIXED = ["--loss.label_smoothing", "0", "--optimizer.weight_decay", "0.01"]
HEADER = ["term", "weight", "test accuracy, %", "ratio before", "after burn-in", "end", "rate, end", "silent, %", "saturated, %", "CPU s"]


def row(term: str, weight: str, runs: list[Trained]) -> list[str]:
    """A line of the table."""

    def of(when: str, name: str, digits: int = 2, scale: float = 1.0) -> str:
        return spread([one.dynamics[when][name] for one in runs], digits, scale)

    ratios = [of(when, "branching ratio") for when in ("before", "burn-in", "end")]
    shares = [of("end", name, 1, 100) for name in ("silent", "saturated")]
    seconds = spread([one.seconds for one in runs], 0)
    return [term, weight, spread([one.accuracy for one in runs], 2, 100), *ratios, of("end", "rate", 3), *shares, seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", nargs="+", default=["1", "4"])
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=list(TERMS))
    arguments = parser.parse_args()
    print(table(HEADER, []), flush=True)
    for term in arguments.terms:
        for weight in ["–"] if term == "none" else arguments.weights:
            options = [*FIXED, "--criticality", term, *TERMS[term], *([] if term == "none" else ["--loss.criticality_weight", weight])]
            runs = [run("soc-lattice", seed, options) for seed in range(arguments.seeds)]
            print(table(row(term, weight, runs), []).splitlines()[0], flush=True)


if __name__ == "__main__":
    main()
