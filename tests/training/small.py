"""Small training tasks whose feature is the number of the row."""

from __future__ import annotations

import torch

from ehrmeta.nn import TaskRows


def rows_of(sizes, *, timed=True, seed=0) -> TaskRows:
    """Tasks of these sizes; outcomes share a level within a task."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    level = torch.repeat_interleave(
        torch.randn(len(sizes), generator=generator), torch.tensor(sizes)
    )
    return TaskRows.from_codes(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        len(sizes),
        timed=timed,
        x=torch.arange(n).float()[:, None],  # the row's number, to recognise it by
        measured=torch.empty(n, 0),
        time=torch.randint(0, 6, (n,), generator=generator).double() if timed else torch.zeros(n),
        y=level + 0.1 * torch.randn(n, generator=generator),
        origin=torch.arange(n),
    )
