"""Deep mixed effects: a linear mixed model with neural networks and a process in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Episodes, Params, Spec, State, part, query_loss
from ehrmeta.algorithms.deep_mixed_effects.correction import (
    correction,
    correction_params,
    fit_linear_correction,
    summary,
)
from ehrmeta.algorithms.deep_mixed_effects.course import (
    FEW_TASKS,
    N_KNOTS,
    natural_basis,
    standard_time,
)
from ehrmeta.algorithms.deep_mixed_effects.start import (
    MixedStart,
    fit_cohort_start,
    fit_mixed_start,
    inflation,
    simulated_starts,
)
from ehrmeta.nn import Distribution, Likelihood, Outcome, TaskRows, TaskSet
from ehrmeta.nn.generalised_mixed_model import N_SWEEPS, matched_observations
from ehrmeta.nn.mixed_process import condition, condition_effects, posterior, posterior_effects
from ehrmeta.ranges import Choice, Range

_DEEP_SHARE = 0.03  # initial gain of deep features, relative to the noise sd
_SHARES_IN_TIME = (1.0, 0.3, 0.1, 0.0)  # candidate factors of slope and process variances


@dataclass(eq=False, repr=False)
class DeepMixedEffects(Algorithm):
    r"""Mixed model with a neural mean, an Ornstein-Uhlenbeck process and deep random effects.

    .. math:: y = x'\beta + g(x) + f(x, s) + e, \quad f \sim GP(0, k), \quad e \sim N(0, \sigma^2)

    .. math:: k = [1, s]\, G\, [1, s']' + \sigma_o^2 e^{-|s - s'| / \tau} + \phi(x)'\phi(x')

    where s is the time since the first support row and G the covariance of random intercept and
    slope. Without support, s is read from the clock if the training tasks start at about the same
    clock time, so that intervals widen as tasks drift apart; otherwise s is its mean. The slope,
    the Ornstein-Uhlenbeck process (which gives recent values more weight) and the deep features
    :math:`\phi` can each be switched off. Adapting needs a Cholesky factorisation of the support's
    covariance.

    Courses that bend (absorption and elimination, growth, plateaus) get a natural cubic spline in s
    in the mean and, for each task, a random multiple of the bend of the population's course. The
    clock s may be the logarithm of the elapsed time. Each of these is kept only if cross-validation
    over tasks improves the squared error after 0, 1, 3 and 5 rows by more than one standard error.

    A small network and, where tasks have time, a linear regression correct mean and scale. They
    read the posterior, a summary of the support and the last measured values, so that outliers get
    less weight and noisy patients get wider intervals. The shift of the mean is proportional to the
    posterior sd, so it vanishes as the support grows. For non-linear means, `MetaRegressor` adds
    boosted trees as an offset. They are cross-fitted by task, and kept only if cross-validation
    over tasks improves by more than one standard error.

    Training starts from the REML fit of the mixed model with process, the ridge regression of the
    linear correction, and zero-initialised networks. It keeps this start unless held-out tasks
    improve. With fewer than 100 tasks, the networks stay at zero. With fewer than 50, process and
    correction are kept only if they improve cross-validation over tasks, and a parametric bootstrap
    widens the predictive distribution for the uncertainty of the parameters.

    For cohorts (hospitals, trials, countries) of tens of rows or more, without time,
    ``feature_slopes=True`` adds random slopes of all features:

    .. math:: \eta(x) = \alpha + x'\beta + b_0 + x'b

    If the estimator has a ``population`` model, the mean is :math:`\alpha + \gamma\, o(x)`, where o
    is the model's cross-fitted prediction (a classifier's logit), and o gets a random slope too.
    The prior covariance of a new cohort's coefficients is the sum of two parts: variances between
    cohorts, and the uncertainty of the mean coefficients. All parameters start at the maximum of
    the marginal likelihood (restricted for real-valued outcomes, by expectation propagation for two
    classes). Slopes that do not differ between cohorts get a variance near 0. An exponential prior
    shrinks standard deviations that few cohorts cannot determine. Predictions are averages over the
    posterior, also without support.

    Parameters
    ----------
    random_slope : bool
        Random slope in time.
    ornstein_uhlenbeck : bool
        Ornstein-Uhlenbeck process: deviations that decay with time.
    curves : bool
        Whether courses may bend where that improves held-out tasks; real-valued outcomes only.
    n_deep : int
        Number of deep features; 0 for none.
    deep_mean : bool
        Whether a network adds to the linear mean.
    trees : bool
        Whether boosted trees may add to the mean; real-valued outcomes only.
    correction : bool
        Whether the predictive distribution is corrected; real-valued outcomes only.
    heteroscedastic : bool
        Whether a network makes the noise of a row depend on its features.
    expectation_propagation : bool
        For two classes: approximate a task's posterior by expectation propagation. Unlike Laplace's
        approximation, it is accurate for small supports.
    feature_slopes : bool
        For cohorts: random slopes of all features and of the population model's prediction, instead
        of slope and process in time.

    References
    ----------
    Laird, Ware (1982), doi:10.2307/2529876. Fortuin, Strathmann, Rätsch (2019), arXiv:1901.08098.
    """

    random_slope: bool = True
    ornstein_uhlenbeck: bool = True
    curves: bool = True
    n_deep: Annotated[int, Range(0, 16)] = 8
    deep_mean: bool = True
    trees: bool = True
    correction: bool = True
    heteroscedastic: Annotated[bool, Choice((False, True))] = False
    expectation_propagation: bool = True
    feature_slopes: bool = False

    serves: ClassVar[tuple[Outcome, ...]] = ("real", "binary")  # the process is one latent outcome
    refusal: ClassVar[str] = (
        "DeepMixedEffects supports real-valued outcomes and two classes. Use BayesianHead for "
        "several classes."
    )
    has_posterior: ClassVar[bool] = True
    consistent: ClassVar[bool] = True
    keeps_start: ClassVar[bool] = True
    later_params: ClassVar[frozenset[str]] = frozenset(
        {"clock", "log_unit", "knots", "curve", "root_curve"}
    )

    def population(self, likelihood: Likelihood) -> RegressorMixin | None:
        """Boosted trees, for real-valued outcomes only."""
        if not self.trees or self.feature_slopes or likelihood.n_classes:
            return None
        return HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=200, max_leaf_nodes=8, random_state=0
        )

    def n_outputs(self, likelihood: Likelihood) -> int:
        """Number of outputs: a term of the mean, deep features, and the log factor of the noise."""
        return 1 + self.n_deep + self.heteroscedastic

    def init(self, spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
        """Zero-initialised networks and unit variances, which `warm_start` replaces."""
        return {
            **super().init(spec, generator),
            **(correction_params(spec, generator) if self._corrects(spec) else {}),
            **(_slope_params(spec.n_features + 2) if self.feature_slopes else {}),
            "mean_gain": torch.zeros(()),
            "noise_gain": torch.zeros(()),
            "inflation": torch.ones(2),
            "deep_gain": torch.full((self.n_deep,), 0.03),
            "intercept": torch.zeros(()),
            "beta": torch.zeros(spec.n_features),
            "beta_elapsed": torch.zeros(()),
            "root": torch.tensor([[0.5, 0.0], [0.0, 0.1]]),
            "log_ou": torch.tensor(-2.0),
            "log_tau": torch.zeros(()),
            "time_scale": torch.ones(()),
            "mean_elapsed": torch.zeros(()),
            "clock": torch.zeros(1 + spec.n_features),
            "log_unit": torch.zeros(()),
            "knots": torch.zeros(N_KNOTS),
            "curve": torch.zeros(2, N_KNOTS - 2),
            "root_curve": torch.zeros(3),
        }

    def warm_start(
        self, spec: Spec, params: dict[str, Tensor], tasks: TaskRows, episodes: Episodes
    ) -> dict[str, Tensor]:
        """REML fit of mixed model and process, then ridge regression of the linear correction."""
        if self.feature_slopes:
            return _replaced(params, fit_cohort_start(tasks, spec.likelihood))
        starts = self._starts(spec, tasks)
        few = tasks.n_tasks < FEW_TASKS and not spec.likelihood.n_classes
        if few or len(starts) > 1:
            episodes = list(episodes)
        if spec.likelihood.n_classes and tasks.timed:
            episodes = list(islice(episodes, 5))
            starts = [
                min(
                    map(starts[0].steadier, _SHARES_IN_TIME),
                    key=lambda one: self._mean_loss(spec, self._started(params, one), episodes),
                )
            ]

        def parts(
            params: Params, support: TaskSet, query: TaskSet
        ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
            state = self.adapt(spec, params, support)
            prior = self._parts(spec, params, state, query)
            shift, variance, _ = self._posterior(params, state, prior)
            noise = spec.likelihood.noise_variance(part(params, "likelihood"))
            sd = torch.sqrt(variance + 1e-12)
            return state["summary"], prior[0], shift, sd, variance + noise

        def corrected(start: MixedStart) -> tuple[dict[str, Tensor], Tensor]:
            return fit_linear_correction(
                partial(parts, self._started(params, start)),
                episodes,
                tasks.n_tasks,
                spread=not spec.likelihood.robust,
                certain=not start.form.is_straight,
            )

        start, linear = starts[0], dict[str, Tensor]()
        if tasks.timed and self._corrects(spec):
            linear, losses = corrected(start)
            for straight in starts[1:]:
                other, others = corrected(straight)
                gain, is_corrected = others - losses, other["correction_linear"].any()
                if is_corrected and float(gain.mean()) <= float(gain.std()) / len(gain) ** 0.5:
                    start, linear = straight, other
        params = self._started(params, start)
        if few:
            simulated = simulated_starts(
                tasks, spec.likelihood, start, random_slope=self.random_slope
            )
            draws = [self._started(params, one) for one in simulated]
            params["inflation"] = inflation(parts, params, draws, list(islice(episodes, 5)))
        return _replaced(params, linear)

    def _starts(self, spec: Spec, tasks: TaskRows) -> list[MixedStart]:
        """The start and, if its courses bend, a straight one, whose correction may bend too."""
        fit = partial(
            fit_mixed_start,
            tasks,
            spec.likelihood,
            random_slope=self.random_slope,
            process=self.ornstein_uhlenbeck,
        )
        start = fit(curves=self.curves)
        if start.form.is_straight or not self._corrects(spec):
            return [start]
        return [start, fit(curves=False)]

    def _mean_loss(self, spec: Spec, params: Params, episodes: Episodes) -> float:
        def one_task(support: TaskSet, query: TaskSet) -> Tensor:
            state = self.adapt(spec, params, support)
            return query_loss(spec, self.predict(spec, params, state, query), query)

        with torch.no_grad():
            losses = [vmap(one_task)(support, query) for _, support, query in episodes]
        return float(torch.cat(losses).mean())

    def _started(self, params: Params, start: MixedStart) -> dict[str, Tensor]:
        deep = {"deep_gain": np.full(self.n_deep, _DEEP_SHARE * np.sqrt(start.noise_var))}
        return _replaced(params, start.params(len(params["beta"])) | deep)

    def adapt(self, spec: Spec, params: Params, support: TaskSet) -> State:
        """Condition the process on the support."""
        first = torch.where(support.mask, support.time, torch.inf)
        first = first.amin(-1) if len(support.y) else support.time.new_zeros(())
        origin = {"n": support.n, "first": torch.where(support.n > 0, first, 0.0)}
        mean, effects, s, noise = self._parts(spec, params, origin, support)
        y, weight = support.y.double(), support.weight.double().clamp(min=1e-12)
        likelihood, latent = part(params, "likelihood"), None
        in_weights = not self._has_process and len(y) > effects.shape[1]
        kernel = effects if in_weights else self._kernel(params, effects, effects, s, s)
        condition_on = condition_effects if in_weights else condition

        def at_support(conditioned: State) -> tuple[Tensor, Tensor]:
            if in_weights:
                return posterior_effects(conditioned, effects)
            return posterior(conditioned, kernel, torch.diagonal(kernel))

        for n_left in reversed(range(spec.likelihood.n_rounds)):
            target, spread = spec.likelihood.pseudo_observations(likelihood, y, mean, noise, latent)
            conditioned = condition_on(kernel, target, spread / weight, support.mask)
            if latent is None:
                distance = conditioned["distance"]  # before outliers lose weight
            if n_left:
                latent = spec.likelihood.damped(latent, at_support(conditioned))
        observed = target, spread / weight
        matches_moments = spec.likelihood.n_classes and self.expectation_propagation
        for _ in range(N_SWEEPS if matches_moments else 0):
            observed = matched_observations(y, weight, mean, observed, at_support(conditioned))
            conditioned = condition_on(kernel, *observed, support.mask)
        unknown = params["inflation"][0].double().square() - 1.0  # of the level, in prior variances
        return {
            **origin,
            **conditioned,
            "effects": effects,
            "s": s,
            "summary": summary(y - mean, support),
            "distance": distance / (1.0 + unknown / support.n.clamp(min=1.0)),
        }

    def predict(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Distribution:
        """Predictive distribution: posterior of f, corrected, plus noise."""
        moments = self._moments(spec, params, state, query)
        return _predictive(spec, part(params, "likelihood"), moments, query)

    def loss(
        self, spec: Spec, params: Params, support: TaskSet, query: TaskSet, progress: Tensor
    ) -> Tensor:
        """Sum of the negative log-likelihoods without and with the correction of the scale.

        The second term has gradients for the correction of the scale only, so that rows with a
        large scale keep their weight in the mean.
        """
        state = self.adapt(spec, params, support)
        if not self._corrects(spec):
            return query_loss(spec, self.predict(spec, params, state, query), query)
        *moments, factor = self._moments(spec, params, state, query)
        likelihood = part(params, "likelihood")
        plain = _predictive(spec, likelihood, (*moments, torch.ones_like(factor)), query)
        likelihood = {name: value.detach() for name, value in likelihood.items()}
        fixed = (*(moment.detach() for moment in moments), factor)
        scaled = _predictive(spec, likelihood, fixed, query)
        return query_loss(spec, plain, query) + query_loss(spec, scaled, query)

    def _moments(
        self, spec: Spec, params: Params, state: State, query: TaskSet
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Corrected mean, posterior variance, noise, and factor of the scale, (point,) each."""
        mean, *_, noise = parts = self._parts(spec, params, state, query)
        shift, variance, _ = self._posterior(params, state, parts)
        loc = mean + shift
        inflation = params["inflation"].double()
        factor = torch.where(state["n"] > 0, inflation[1], inflation[0]) * torch.ones_like(loc)
        if self._corrects(spec):
            sd = torch.sqrt(variance + 1e-12)
            change, scale_factor = correction(
                spec, params, state["summary"], query, mean, shift, sd
            )
            loc, factor = loc + change, factor * scale_factor
        return loc, variance, noise, factor

    def own_weight(self, spec: Spec, params: Params, state: State, query: TaskSet) -> Tensor:
        """``1 - posterior / prior variance`` of f."""
        parts = self._parts(spec, params, state, query)
        _, variance, prior = self._posterior(params, state, parts)
        return (1.0 - variance / prior.clamp(min=1e-12)).to(query.y.dtype)

    def _posterior(
        self, params: Params, state: State, parts: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior mean of f, its posterior and its prior variance, (point,) each."""
        _, effects, s, _ = parts
        prior = effects.square().sum(-1)
        if "b" in state:
            return *posterior_effects(state, effects), prior
        cross = self._kernel(params, effects, state["effects"], s, state["s"])
        if self._has_process:
            prior = prior + torch.exp(2.0 * params["log_ou"])
        return *posterior(state, cross, prior), prior

    def _parts(
        self, spec: Spec, params: Params, state: Params, rows: TaskSet
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean (point,), effects (point, effect) with covariance E E', s and noise (point,)."""
        output = spec.output(params, rows.x)
        clock, known = params["clock"].detach(), state["n"] > 0
        by_clock = clock[0] + rows.x @ clock[1:]
        elapsed = torch.where(known, rows.time - state["first"], by_clock)
        scaling = (params[name].detach() for name in ("log_unit", "mean_elapsed", "time_scale"))
        s = torch.where(known | clock.any(), standard_time(elapsed, *scaling), 0.0)
        mean = params["intercept"] + rows.x @ params["beta"] + params["beta_elapsed"] * s
        if self.deep_mean:
            mean = mean + params["mean_gain"] * output[:, 0]
        curves = natural_basis(s, params["knots"].detach()) @ params["curve"].double().mT
        mean = mean + curves[:, 0]
        line = torch.stack([torch.ones_like(s), s * self.random_slope], -1)
        line = line @ params["root"].tril().double()
        bend = curves[:, 1:] * params["root_curve"].double()
        deep = (params["deep_gain"] * output[:, 1 : 1 + self.n_deep]).double()
        effects = torch.cat([line + bend[:, :2], bend[:, 2:], deep], -1)
        offset = rows.offset
        if self.feature_slopes:
            centred = (offset - params["mean_offset"].detach())[:, None]
            columns = torch.cat([torch.ones_like(centred), rows.x, centred], -1)
            slopes = columns.double() @ params["slope_root"].tril().double()
            effects = torch.cat([effects, slopes], -1)
            offset = params["offset_gain"] * offset
        noise = spec.likelihood.noise_variance(part(params, "likelihood")).expand(len(s))
        if self.heteroscedastic:
            noise = noise * torch.exp(params["noise_gain"] * output[:, -1]).double()
        return (mean + offset).double(), effects, s, noise

    @property
    def _has_process(self) -> bool:
        return self.ornstein_uhlenbeck and not self.feature_slopes

    def _corrects(self, spec: Spec) -> bool:
        return self.correction and not spec.likelihood.n_classes

    def _kernel(
        self, params: Params, left: Tensor, right: Tensor, s_left: Tensor, s_right: Tensor
    ) -> Tensor:
        """Prior covariance (point, point) of f."""
        kernel = left @ right.mT
        if self._has_process:
            gap = (s_left[:, None] - s_right).abs() * torch.exp(-params["log_tau"])
            kernel = kernel + torch.exp(2.0 * params["log_ou"] - gap)
        return kernel


def _predictive(
    spec: Spec, likelihood: Params, moments: tuple[Tensor, ...], query: TaskSet
) -> Distribution:
    """Predictive distribution, with its scale multiplied by the last of `moments`."""
    loc, variance, noise, factor = moments
    predictive = spec.likelihood.predictive(likelihood, (loc, variance), noise)
    if "scale" in predictive:
        predictive["scale"] = predictive["scale"] * factor
    return {name: value.to(query.y.dtype) for name, value in predictive.items()}


def _replaced(params: Params, values: Mapping[str, Any]) -> dict[str, Tensor]:
    return dict(params) | {
        name: torch.as_tensor(value, dtype=params[name].dtype)
        for name, value in values.items()
        if name in params  # classes have no noise
    }


def _slope_params(n_slopes: int) -> dict[str, Tensor]:
    return {
        "slope_root": torch.zeros(n_slopes, n_slopes),
        "offset_gain": torch.ones(()),
        "mean_offset": torch.zeros(()),
    }
