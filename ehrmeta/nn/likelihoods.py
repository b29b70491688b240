r"""Likelihoods: predictive distributions and inner losses of a network's outputs.

Outcomes are on the learner's scale (mean 0, sd 1). Normal and StudentT carry two learned
variances, :math:`\sigma^2` within a task and :math:`\tau^2` between tasks. After ``n`` support
points the predictive variance is that of a random intercept,

.. math:: s^2(n) = \sigma^2 + \frac{\tau^2}{1 + n\,\tau^2/\sigma^2},

which falls from :math:`\sigma^2 + \tau^2` for a new task to :math:`\sigma^2` for large supports.

For Bernoulli and Categorical, the network's outputs are log-odds. Tasks differ by a random shift of
the log-odds with learned variance :math:`\tau^2`. After ``n`` support points its variance is

.. math:: v(n) = \frac{\tau^2}{1 + n\, i\, \tau^2}, \qquad i = \frac{C - 1}{C^2},

where i is the information of one observation of C equally likely classes. Probabilities are
averaged over this shift, because they would be too extreme at a shift of 0.

Processes and mixed models replace outcomes by normal pseudo-observations that match the slope and
curvature of the log density. Repeated in several rounds, this is Laplace's approximation.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ehrmeta.nn.backbone import Params

Distribution = dict[str, Tensor]
Outcome = Literal["real", "binary", "multiclass"]
"""Kinds of outcome: real-valued, two classes, more classes."""
Pair = tuple[Tensor, Tensor]
"""Mean and variance, slope and curvature, or target and noise variance, of each point."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_MAX_STEP = 4.0  # largest change of log-odds in a Newton step, against overshooting
_MIN_CURVATURE = 1e-4
_MIN_SHARE = 1e-6  # smallest probability of a class in a mixture


class Likelihood(BaseEstimator, ABC):
    """Base class of predictive distribution families.

    Regression and classification differ only in the likelihood. The methods that are not abstract
    are right for a normal outcome.

    Attributes
    ----------
    n_rounds : int
        Rounds of pseudo-observations; one is exact for normal noise.
    robust : bool
        Whether outliers have less weight.
    """

    n_rounds: ClassVar[int] = 1
    robust: ClassVar[bool] = False

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for a real-valued outcome."""
        return 0

    @property
    def outcome(self) -> Outcome:
        """Kind of outcome."""
        if self.n_classes == 0:
            return "real"
        return "binary" if self.n_classes == 2 else "multiclass"

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return 1

    @abstractmethod
    def init(self) -> dict[str, Tensor]:
        """Initial learned parameters."""

    @abstractmethod
    def inner_loss(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """Loss (point,) of outputs (point, output), which gradient steps on the support reduce."""

    @abstractmethod
    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """Derivative (point, output) of `inner_loss` with respect to the output."""

    @abstractmethod
    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log density of outcomes, (point,)."""

    def distribution(self, params: Params, output: Tensor, n: Tensor) -> Distribution:
        """Predictive distribution, (point, ...), after n support points."""
        return self.averaged(params, output, self.shift_variance(params, n))

    def shift_variance(self, params: Params, n: Tensor) -> Tensor:
        """Variance of a task's shift after n support points."""
        within, between = _variance(params, "within"), _variance(params, "between")
        return between / (1.0 + n * between / within)

    def averaged(self, params: Params, output: Tensor, variance: Tensor) -> Distribution:
        """Predictive distribution averaged over normal outputs with this mean and variance.

        Parameters
        ----------
        output : (point, output)
        variance : (point, output) or ()
        """
        scale = torch.sqrt(_variance(params, "within") + variance)
        return {"loc": output[:, 0], "scale": scale.expand(output.shape)[:, 0]}

    def shift(self, distribution: Distribution, offset: Tensor) -> Distribution:
        """The distribution with an offset (point,) added to the linear predictor."""
        return distribution | {"loc": distribution["loc"] + offset}

    def coded(self, y: Tensor, offset: Tensor) -> Tensor:
        """Outcomes as network inputs, (point, max(classes, 1)); real-valued ones minus offset."""
        return (y - offset)[:, None]

    def one_hot(self, y: Tensor) -> Tensor:
        """Indicator (point, class) of the observed classes."""
        return (y[:, None] == torch.arange(self.n_classes, device=y.device)).to(y.dtype)

    def mixture(
        self, params: Params, weights: Tensor, y: Tensor, prior: Tensor, n: Tensor
    ) -> Distribution:
        """Weighted average of observed outcomes and a prediction.

        Parameters
        ----------
        weights : (point, row + 1)
            Weights of the rows and, last, of the prediction; they sum to 1.
        y : (row,)
        prior : (point, output)
            The prediction.
        n : ()
            Number of support points.
        """
        loc = (weights[:, :-1] @ y)[:, None] + weights[:, -1:] * prior
        return self.distribution(params, loc, n)

    def curvature(self, params: Params, latent: Tensor, y: Tensor, floor: Tensor) -> Pair:
        """Slope and curvature of the log-likelihood, (point, output) each.

        `floor` () bounds the variance of the noise from below.
        """
        slope = -self.error(params, latent, y)
        noise = torch.maximum(torch.exp(2.0 * params["log_within"].double()), floor)
        residual = y[:, None] - latent
        small = residual.abs() < 1e-9
        share = torch.where(small, 1.0, slope / torch.where(small, 1.0, residual))  # 1 for Normal
        return slope / noise, share / noise

    def noise_variance(self, params: Params) -> Tensor:
        """Squared scale of the noise; 0 for classes."""
        return _variance(params, "within").double()

    def pseudo_observations(
        self, params: Params, y: Tensor, mean: Tensor, noise: Tensor, posterior: Pair | None
    ) -> Pair:
        """Targets and noise variances of normal pseudo-observations.

        They match slope and curvature of the log-likelihood at the posterior mean. For two classes,
        the target is a Newton step towards the mode (Laplace's approximation). For Student's t, it
        is the residual, and the noise variance increases with the size of the residual (expectation
        maximisation over the scale mixture).

        Parameters
        ----------
        y, mean, noise : (point,)
            Outcome, mean and squared scale of the noise.
        posterior : tuple of Tensor, or None
            Posterior mean and variance of the process after the last round.
        """
        return y - mean, noise

    def damped(self, before: Pair | None, after: Pair) -> Pair:
        """Posterior at the start of the next round: for classes, after a bounded Newton step."""
        return after

    def predictive(self, params: Params, latent: Pair, noise: Tensor) -> Distribution:
        """Predictive distribution given posterior mean and variance of a process, (point,) each.

        For Student's t, the sum of a normal variable and noise is approximated by a Student's t
        with the variance of the sum. It has more degrees of freedom if the noise is a smaller share
        of that variance.
        """
        return {"loc": latent[0], "scale": torch.sqrt(latent[1] + noise)}


@dataclass(eq=False, repr=False)
class Normal(Likelihood):
    """Normal outcome; the inner loss is half the squared error."""

    def init(self) -> dict[str, Tensor]:
        """Equal variance within and between tasks."""
        return {"log_within": torch.tensor(-0.35), "log_between": torch.tensor(-0.35)}

    def inner_loss(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``(output - y)^2 / 2``."""
        return 0.5 * (output[:, 0] - y).square()

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``output - y``."""
        return output - y[:, None]

    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log density of the normal distribution."""
        scale = distribution["scale"]
        standard = (y - distribution["loc"]) / scale
        return -0.5 * standard.square() - scale.log() - 0.5 * math.log(2.0 * math.pi)


@dataclass(eq=False, repr=False)
class StudentT(Likelihood):
    """Student's t outcome with learned degrees of freedom, robust to outliers.

    The inner loss is the negative log density times ``sigma^2``. Small residuals have about the
    same gradient as with `Normal`, and the gradient of outliers is bounded.
    """

    n_rounds: ClassVar[int] = 8
    robust: ClassVar[bool] = True

    def init(self) -> dict[str, Tensor]:
        """Equal variance within and between tasks, about 5 degrees of freedom."""
        return {
            "log_within": torch.tensor(-0.5),
            "log_between": torch.tensor(-0.5),
            "raw_dof": torch.tensor(3.0),
        }

    def inner_loss(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``(dof + 1) sigma^2 log(1 + r^2 / (dof sigma^2)) / 2`` with ``r = output - y``."""
        variance, dof = _variance(params, "within"), degrees_of_freedom(params)
        ratio = (output[:, 0] - y).square() / (dof * variance)
        return 0.5 * (dof + 1.0) * variance * torch.log1p(ratio)

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``(dof + 1) sigma^2 r / (dof sigma^2 + r^2)`` with ``r = output - y``."""
        residual = output - y[:, None]
        variance, dof = _variance(params, "within"), degrees_of_freedom(params)
        return (dof + 1.0) * variance * residual / (dof * variance + residual.square())

    def averaged(self, params: Params, output: Tensor, variance: Tensor) -> Distribution:
        """Location, scale and degrees of freedom."""
        dof = degrees_of_freedom(params).expand(len(output))
        return super().averaged(params, output, variance) | {"dof": dof}

    def pseudo_observations(
        self, params: Params, y: Tensor, mean: Tensor, noise: Tensor, posterior: Pair | None
    ) -> Pair:
        """The residual, with a noise variance that increases with the residual's size."""
        target = y - mean
        if posterior is None:
            return target, noise
        latent, variance = posterior
        dof = degrees_of_freedom(params).double()
        ratio = ((target - latent).square() + variance) / noise
        return target, noise * (dof + ratio) / (dof + 1.0)

    def predictive(self, params: Params, latent: Pair, noise: Tensor) -> Distribution:
        """Student's t with the variance of the sum."""
        excess = degrees_of_freedom(params).double() - 2.0
        noise_variance = noise * (excess + 2.0) / excess
        total = latent[1] + noise_variance
        dof = 2.0 + excess * (total / noise_variance).square()
        return {"loc": latent[0], "scale": torch.sqrt(total * (dof - 2.0) / dof), "dof": dof}

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


def _variance(params: Params, name: str) -> Tensor:
    return torch.exp(2.0 * params[f"log_{name}"])


def degrees_of_freedom(params: Params) -> Tensor:
    """Degrees of freedom above 2, so that the variance exists."""
    return 2.0 + torch.nn.functional.softplus(params["raw_dof"])


class ClassLikelihood(Likelihood):
    """Base class of distributions over classes; outcomes are class numbers 0, 1, ... as floats.

    The predictive distribution is ``{"logits": (point, class)}``.
    """

    n_rounds: ClassVar[int] = 8

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

    def init(self) -> dict[str, Tensor]:
        """Log-odds with an sd of 0.6 between tasks."""
        return {"log_between": torch.tensor(-0.5)}

    def shift_variance(self, params: Params, n: Tensor) -> Tensor:
        """Variance of a task's shift of the log-odds after n support points."""
        between = _variance(params, "between")
        information = (self.n_classes - 1) / self.n_classes**2
        return between / (1.0 + n * information * between)

    def averaged(self, params: Params, output: Tensor, variance: Tensor) -> Distribution:
        """Class probabilities averaged over the unknown log-odds."""
        return {"logits": self.logits(output, variance)}

    def shift(self, distribution: Distribution, offset: Tensor) -> Distribution:
        """One offset for all classes, which does not change the probabilities."""
        return {"logits": distribution["logits"] + offset[:, None]}

    def log_prob(self, distribution: Distribution, y: Tensor) -> Tensor:
        """Log probability of the observed classes."""
        return (torch.log_softmax(distribution["logits"], -1) * self.one_hot(y)).sum(-1)

    def coded(self, y: Tensor, offset: Tensor) -> Tensor:
        """Indicators of the classes."""
        return self.one_hot(y)

    def mixture(
        self, params: Params, weights: Tensor, y: Tensor, prior: Tensor, n: Tensor
    ) -> Distribution:
        """Weighted class frequencies, at least 1e-6."""
        population = torch.softmax(self.logits(prior, torch.zeros_like(prior)), -1)
        p = weights[:, :-1] @ self.one_hot(y) + weights[:, -1:] * population
        return {"logits": p.clamp(min=_MIN_SHARE).log()}

    def curvature(self, params: Params, latent: Tensor, y: Tensor, floor: Tensor) -> Pair:
        """``y - p`` and ``p (1 - p)``; without noise."""
        p = torch.softmax(latent, -1) if self.n_outputs > 1 else torch.sigmoid(latent)
        return -self.error(params, latent, y), p * (1.0 - p)

    def noise_variance(self, params: Params) -> Tensor:
        """Zero: classes have no noise."""
        return params["log_between"].new_zeros(()).double()

    def pseudo_observations(
        self, params: Params, y: Tensor, mean: Tensor, noise: Tensor, posterior: Pair | None
    ) -> Pair:
        """A Newton step towards the mode, for two classes."""
        latent = torch.zeros_like(mean) if posterior is None else posterior[0]
        p = torch.sigmoid(mean + latent)
        curvature = (p * (1.0 - p)).clamp(min=_MIN_CURVATURE)
        return latent + (y - p) / curvature, 1.0 / curvature

    def damped(self, before: Pair | None, after: Pair) -> Pair:
        """Bound the Newton step by one factor for all points.

        Clipping each point separately would shift the mode of rare classes.
        """
        mean, variance = after
        start = torch.zeros_like(mean) if before is None else before[0]
        step = mean - start
        largest = torch.cat([step.abs(), step.new_full((1,), _MAX_STEP)]).amax()
        return start + step * (_MAX_STEP / largest), variance

    def predictive(self, params: Params, latent: Pair, noise: Tensor) -> Distribution:
        """Probabilities averaged over the latent log-odds."""
        return {"logits": self.logits(latent[0][:, None], latent[1][:, None])}


@dataclass(eq=False, repr=False)
class Bernoulli(ClassLikelihood):
    """Two classes; the output is the log-odds of the second."""

    @property
    def n_classes(self) -> int:
        """Number of classes: two."""
        return 2

    def inner_loss(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """Negative log probability of the class, ``log(1 + e^output) - y output``."""
        return torch.nn.functional.softplus(output[:, 0]) - y * output[:, 0]

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``p - y``."""
        return torch.sigmoid(output) - y[:, None]

    def shift(self, distribution: Distribution, offset: Tensor) -> Distribution:
        """Add the offset to the log-odds of the second class."""
        first, second = distribution["logits"].unbind(-1)
        return {"logits": torch.stack([first, second + offset], -1)}

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
        """Number of classes, the field `classes`."""
        return self.classes

    @property
    def n_outputs(self) -> int:
        """Number of outputs: one per class."""
        return self.classes

    def inner_loss(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """Negative log probability of the class."""
        return -self.log_prob({"logits": output}, y)

    def error(self, params: Params, output: Tensor, y: Tensor) -> Tensor:
        """``p - indicator of y``."""
        return torch.softmax(output, -1) - self.one_hot(y)

    def logits(self, output: Tensor, variance: Tensor) -> Tensor:
        """Probit approximation: log-odds divided by ``sqrt(1 + pi v / 8)``."""
        return output * torch.rsqrt(1.0 + math.pi * variance / 8.0)
