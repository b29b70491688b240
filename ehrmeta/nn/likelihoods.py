r"""Likelihoods: from a network's output to a predictive distribution, and back to an error.

Outcomes are on the learner's scale (mean 0, sd 1). Normal and StudentT carry two learned
variances, :math:`\sigma^2` within a task and :math:`\tau^2` between tasks. After ``n`` support
points the predictive variance is that of a random intercept,

.. math:: s^2(n) = \sigma^2 + \frac{\tau^2}{1 + n\,\tau^2/\sigma^2},

so a new task starts at :math:`\sigma^2 + \tau^2` and approaches :math:`\sigma^2` as its own rows
come in.

Bernoulli and Categorical read log-odds, which differ between tasks by a random shift of learned
variance :math:`\tau^2`. After ``n`` support points its variance is

.. math:: v(n) = \frac{\tau^2}{1 + n\, i\, \tau^2}, \qquad i = \frac{C - 1}{C^2},

with i the information of one observation of C equally likely classes. Probabilities are averages
over that shift: plugged in at zero they would be too extreme (with :math:`\tau = 1`, by a tenth of
the events).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ehrmeta.nn.backbone import Params

Distribution = dict[str, Tensor]
Outcome = Literal["real", "binary", "multiclass"]
"""Kinds of outcome: real-valued, two classes, more classes."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


class Likelihood(BaseEstimator, ABC):
    """A predictive distribution family; everything that regression and classification differ in."""

    @property
    def outcome(self) -> Outcome:
        """The kind of outcome that it describes."""
        return "real"

    @property
    def n_outputs(self) -> int:
        """Outputs of the network that the family reads."""
        return 1

    @abstractmethod
    def init(self) -> dict[str, Tensor]:
        """Learned parameters of the family."""

    @abstractmethod
    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """Derivative (point, output) of the inner loss with respect to the output."""

    @abstractmethod
    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Parameters of the predictive distribution, (point, ...), after n support points."""

    @abstractmethod
    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log density of outcomes, (point,)."""


@dataclass(eq=False, repr=False)
class Normal(Likelihood):
    """Normal outcome; the inner loss is half the squared error."""

    def init(self) -> dict[str, Tensor]:
        """Equal variance within and between tasks."""
        return {"log_within": torch.tensor(-0.35), "log_between": torch.tensor(-0.35)}

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``output - y``."""
        return output - y[:, None]

    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Mean and standard deviation."""
        return {"loc": output[:, 0], "scale": _scale(params, n).expand(len(output))}

    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log density of the normal distribution."""
        scale = distribution["scale"]
        standard = (y - distribution["loc"]) / scale
        return -0.5 * standard.square() - scale.log() - 0.5 * math.log(2.0 * math.pi)


@dataclass(eq=False, repr=False)
class StudentT(Likelihood):
    """Student's t outcome with learned degrees of freedom: robust to outlying values.

    The inner loss is the negative log density times ``sigma^2``, so that a small residual weighs
    as under Normal and a gross one next to nothing.
    """

    def init(self) -> dict[str, Tensor]:
        """Equal variance within and between tasks, about 5 degrees of freedom."""
        return {
            "log_within": torch.tensor(-0.5),
            "log_between": torch.tensor(-0.5),
            "raw_dof": torch.tensor(3.0),
        }

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``(dof + 1) sigma^2 r / (dof sigma^2 + r^2)`` with ``r = output - y``."""
        residual = output - y[:, None]
        variance, dof = torch.exp(2.0 * params["log_within"]), degrees_of_freedom(params)
        return (dof + 1.0) * variance * residual / (dof * variance + residual.square())

    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Location, scale and degrees of freedom."""
        return {
            "loc": output[:, 0],
            "scale": _scale(params, n).expand(len(output)),
            "dof": degrees_of_freedom(params).expand(len(output)),
        }

    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log density of Student's t distribution."""
        scale, dof = distribution["scale"], distribution["dof"]
        standard = (y - distribution["loc"]) / scale
        return (
            torch.lgamma(0.5 * (dof + 1.0))
            - torch.lgamma(0.5 * dof)
            - 0.5 * torch.log(math.pi * dof)
            - scale.log()
            - 0.5 * (dof + 1.0) * torch.log1p(standard.square() / dof)
        )


LIKELIHOODS: dict[str, type[Likelihood]] = {"normal": Normal, "student_t": StudentT}


def _scale(params: Params, n: Tensor) -> Tensor:
    within, between = torch.exp(2.0 * params["log_within"]), torch.exp(2.0 * params["log_between"])
    return torch.sqrt(within + between / (1.0 + n * between / within))


def degrees_of_freedom(params: Params) -> Tensor:
    """Degrees of freedom above 2, so that the variance exists."""
    return 2.0 + torch.nn.functional.softplus(params["raw_dof"])


class ClassLikelihood(Likelihood):
    """A distribution over classes; outcomes are class numbers 0, 1, ... as floats.

    The predictive distribution is ``{"logits": (point, class)}``.
    """

    @property
    def outcome(self) -> Outcome:
        """Two classes, or several."""
        return "binary" if self.n_classes == 2 else "multiclass"

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

    def shift_variance(self, params: Params, n: Tensor) -> Tensor:
        """Variance of a task's shift after n support points."""
        between = torch.exp(2.0 * params["log_between"])
        information = (self.n_classes - 1) / self.n_classes**2
        return between / (1.0 + n * information * between)

    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Class probabilities averaged over the task's unknown shift."""
        return {"logits": self.logits(output, self.shift_variance(params, n))}

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
