"""Public names of this package, imported when they are first read."""

from ehrmeta.baselines.boosting import (
    HistoryBoosting as HistoryBoosting,
    PopulationBoosting as PopulationBoosting,
)
from ehrmeta.baselines.mixed_effects import (
    MixedEffects as MixedEffects,
    MixedEffectsLogistic as MixedEffectsLogistic,
    MixedProcessEffects as MixedProcessEffects,
)
from ehrmeta.baselines.own_rows import (
    LastValue as LastValue,
    TaskLogistic as TaskLogistic,
    TaskMean as TaskMean,
    TaskRidge as TaskRidge,
)
from ehrmeta.baselines.updating import (
    UpdatedClassifier as UpdatedClassifier,
    UpdatedRegressor as UpdatedRegressor,
)
