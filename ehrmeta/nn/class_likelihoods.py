r"""Likelihoods of classes: outputs are log-odds, predictions integrate over what is not known yet.

A task's log-odds differ from the population's by a random shift of variance :math:`\tau^2`,
learned. After ``n`` support points what is left of it is

.. math:: v(n) = \frac{\tau^2}{1 + n\, i\, \tau^2}, \qquad i = \frac{C - 1}{C^2},

with i the information of one observation of C equally likely classes. Probabilities are averages
over that shift: plugged in at zero they would be too extreme (with :math:`\tau = 1`, by a tenth of
the events).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ehrmeta.nn.backbone import Params
from ehrmeta.nn.likelihoods import Distribution, Likelihood

__all__ = ["Bernoulli", "Categorical", "ClassLikelihood"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


class ClassLikelihood(Likelihood):
    """A distribution over classes; outcomes are class numbers 0, 1, ... as floats.

    The predictive distribution is ``{"logits": (point, class)}``.
    """

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """Number of classes."""

    @abstractmethod
    def logits(self, output: Tensor, variance: Tensor) -> Tensor:
        """Log-probabilities, up to a constant, (point, class).

        Parameters
        ----------
        output : (point, output)
            Mean of the latent outputs.
        variance : (point, output) or ()
            Their variance, over which the probabilities are averaged.
        """

    @abstractmethod
    def shift(self, logits: Tensor, offset: Tensor) -> Tensor:
        """Logits (point, class) with an offset (point,) added to the linear predictor."""

    def init(self) -> dict[str, Tensor]:
        """Log-odds that differ between tasks by an sd of 0.6."""
        return {"log_between": torch.tensor(-0.5)}

    def left(self, params: Params, n: Tensor) -> Tensor:
        """Variance of a task's shift after n support points."""
        between = torch.exp(2.0 * params["log_between"])
        information = (self.n_classes - 1) / self.n_classes**2
        return between / (1.0 + n * information * between)

    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Class probabilities averaged over the task's unknown shift."""
        return {"logits": self.logits(output, self.left(params, n))}

    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log probability of the observed classes."""
        return (torch.log_softmax(distribution["logits"], -1) * self.one_hot(y)).sum(-1)

    def one_hot(self, y: Tensor) -> Tensor:
        """Indicator (point, class) of the observed classes."""
        classes = torch.arange(self.n_classes, device=y.device)
        return (y[:, None] == classes).to(y.dtype)


@dataclass(eq=False, repr=False)
class Bernoulli(ClassLikelihood):
    """Two classes; the output is the log-odds of the second."""

    @property
    def n_classes(self) -> int:
        """Two."""
        return 2

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``p - y``."""
        return torch.sigmoid(output) - y[:, None]

    def shift(self, logits: Tensor, offset: Tensor) -> Tensor:
        """More log-odds of the second class."""
        return torch.stack([logits[:, 0], logits[:, 1] + offset], -1)

    def logits(self, output: Tensor, variance: Tensor) -> Tensor:
        """Gauss-Hermite average of the logistic function."""
        nodes, weights = (
            torch.as_tensor(a, dtype=output.dtype, device=output.device)
            for a in (_NODES, np.log(_WEIGHTS / _WEIGHTS.sum()))
        )
        z = output + torch.sqrt(variance.clamp(min=1e-12)) * nodes  # (point, node)
        sides = torch.stack([-z, z], -2)  # (point, class, node)
        return torch.logsumexp(torch.nn.functional.logsigmoid(sides) + weights, -1)


@dataclass(eq=False, repr=False)
class Categorical(ClassLikelihood):
    """Several classes; one output each.

    Parameters
    ----------
    classes : int
        Number of classes.
    """

    classes: int

    @property
    def n_classes(self) -> int:
        """`classes`."""
        return self.classes

    @property
    def n_outputs(self) -> int:
        """One for every class."""
        return self.classes

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``p - indicator of y``."""
        return torch.softmax(output, -1) - self.one_hot(y)

    def shift(self, logits: Tensor, offset: Tensor) -> Tensor:
        """One offset for all classes: the probabilities stay."""
        return logits + offset[:, None]

    def logits(self, output: Tensor, variance: Tensor) -> Tensor:
        """The probit-type average: log-odds shrunk by ``sqrt(1 + pi v / 8)``."""
        return output * torch.rsqrt(1.0 + math.pi * variance / 8.0)
