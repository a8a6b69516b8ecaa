"""Training: any potential, on any of energy, forces and stress, whole committees at once."""

from alj.training.bayesian_regression import bayesian_regression
from alj.training.fitting import Fitted, NotFinite, fit
from alj.training.gradient import gradient
from alj.training.levenberg_marquardt import levenberg_marquardt
from alj.training.tracking import Fold, Progress

__all__ = [
    "TRAINERS",
    "Fitted",
    "Fold",
    "NotFinite",
    "Progress",
    "bayesian_regression",
    "fit",
    "gradient",
    "levenberg_marquardt",
]

TRAINERS = (gradient, levenberg_marquardt, bayesian_regression)
