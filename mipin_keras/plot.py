"""Pictures of explanations: :mod:`mipin_keras.plotting.plot` under its public name."""

from .plotting.plot import *  # noqa: F403
