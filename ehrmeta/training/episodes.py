"""Episodes: random supports and queries of a batch of training tasks, vectorised over tasks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ehrmeta.nn.batch import TaskRows, TaskSet, padded_index, padded_set


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws a support size per task, then its support and query rows.

    With time, the support is a task's first k rows and the query is drawn from strictly later rows;
    without time, both are random rows.

    Parameters
    ----------
    rows : TaskRows
        Training tasks.
    shots : tuple of int
        Smallest and largest support size, inclusive; at least one row remains for the query.
    max_queries : int
        Largest number of query rows per task.
    time_unit : float
        A typical time between visits.
    """

    rows: TaskRows
    shots: tuple[int, int]
    max_queries: int
    time_unit: float

    def draw(self, tasks: Tensor, generator: torch.Generator) -> tuple[TaskSet, TaskSet]:
        """Support and query of each task in the batch `tasks` (task,)."""
        device = self.rows.y.device
        sizes = self.rows.sizes[tasks]
        index, mask = padded_index(self.rows.starts[:-1][tasks], sizes)
        keys = torch.rand(2, *mask.shape, generator=generator).to(device)
        low, high = self.shots
        top = torch.minimum(sizes - 1, torch.full_like(sizes, high))
        low_k = torch.minimum(top, torch.full_like(sizes, low))
        uniform = torch.rand(len(tasks), generator=generator).to(device)
        shots = (low_k + (uniform * (top - low_k + 1)).long()).clamp(max=top)  # (task,)

        if not self.rows.timed:
            order = torch.where(mask, keys[0], 2.0).argsort(1)
            index = index.gather(1, order)
        position = torch.arange(index.shape[1], device=device)
        width = min(high, index.shape[1])  # not this batch's maximum: constant shapes are faster
        in_support = position < shots[:, None]
        support_index, support_mask = index[:, :width], in_support[:, :width]

        eligible = mask & ~in_support
        if self.rows.timed:
            time = self.rows.time[index]
            last = torch.where(in_support, time, -torch.inf).amax(1, keepdim=True)
            eligible &= time > last
        n_queries = min(self.max_queries, index.shape[1])
        chosen = torch.where(eligible, keys[1], 2.0).topk(n_queries, dim=1, largest=False).indices
        query_index, query_mask = index.gather(1, chosen), eligible.gather(1, chosen)

        source = {
            "source": self.rows,
            "source_index": support_index,
            "source_mask": support_mask,
            "time_unit": self.time_unit,
        }
        support = padded_set(self.rows, support_index, support_mask, **source)  # type: ignore[arg-type]
        query = padded_set(self.rows, query_index, query_mask, **source)  # type: ignore[arg-type]
        return support, query
