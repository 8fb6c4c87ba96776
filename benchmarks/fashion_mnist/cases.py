"""What is measured: every combination that has a row, in the order of its importance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .networks import NETWORKS
from .ways import LEARNED, ONCE, SCRATCH, VARIANTS, Way

SHARES = (0.5, 0.25, 0.1)
SEEDS = (0, 1, 2)
QUESTIONS: dict[str, dict[str, Way]] = {
    "no training": ONCE | VARIANTS,
    "fine-tuned": ONCE | SCRATCH,
    "fine-tuned, distilled": ONCE | SCRATCH,
    "500 steps": LEARNED,
    "2000 steps": LEARNED,
    "10000 steps": LEARNED,
}
"""The ways that answer each question. A number of steps is always distilled."""


@dataclass(frozen=True)
class Case:
    """One row to compute."""

    question: str
    network: str
    seed: int
    way: str
    share: float

    @classmethod
    def read(cls, row: dict[str, Any]) -> Case:
        return cls(row["question"], row["network"], row["seed"], row["way"], row["share"])

    @property
    def name(self) -> str:
        """What `--only` looks at."""
        return "/".join(str(part) for part in asdict(self).values())

    @property
    def distilled(self) -> bool:
        return self.question not in ("no training", "fine-tuned")

    def steps(self, tuning: int) -> int:
        """Return the training steps after or during the cut, if fine-tuning has ``tuning``."""
        count = self.question.removesuffix(" steps")
        return int(count) if count.isdigit() else tuning if self.question.startswith("fine") else 0


def cases(seeds: tuple[int, ...]) -> Iterator[Case]:
    """Yield all cases: those of one base after each other, so that an interrupted run has whole tables."""
    for question, ways in QUESTIONS.items():
        for seed in seeds:
            for network in NETWORKS:
                yield from (Case(question, network, seed, way, share) for way in ways for share in SHARES)
