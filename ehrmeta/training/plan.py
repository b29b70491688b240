"""How long and how hard to train."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

__all__ = ["TrainingPlan"]


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how hard to train; the estimators document each field."""

    shots: tuple[int, int] = (0, 10)
    max_queries: int = 10
    max_steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    max_norm: float = 1.0
    warmup_fraction: float = 0.05
    check_every: int = 50
    patience: int = 10
    chunk_size: int | None = None
    precision: str = "float32"
    compile: bool = False
    time_unit: float = 1.0
    progress_bar: bool = field(default_factory=sys.stderr.isatty, compare=False, repr=False)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to 2 %.

        Examples
        --------
        >>> plan = TrainingPlan(max_steps=100, learning_rate=1.0)
        >>> [round(plan.rate(step), 2) for step in (1, 5, 50, 100)]
        [0.2, 1.0, 0.57, 0.02]
        """
        warmup = max(1, int(self.warmup_fraction * self.max_steps))
        done = step - 1
        if done < warmup:
            return self.learning_rate * (done + 1) / warmup
        angle = math.pi * (done - warmup) / max(1, self.max_steps - warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(angle)))
