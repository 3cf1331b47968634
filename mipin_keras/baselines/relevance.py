"""The named methods of layer-wise relevance propagation: :class:`~.lrp.LRP` with its rules chosen."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from ..checks import number, one_of
from . import rules
from .lrp import LRP
from .rules import AlphaBeta, AlphaBetaX, Epsilon


class _Named(LRP):
    """LRP with its rule fixed by the method's name."""

    _fixed = frozenset({"rule"})

    def default_bn_rule(self) -> rules.Rule:
        return self.kernel_rules["dense"]


class LRPZ(_Named):
    """LRP with the rule Z: relevance in proportion to each input's share in z, the bias included.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.z"

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, rule="Z", **options)


class LRPEpsilon(_Named):
    """LRP with the epsilon rule, the paper's "LRP" (Bach et al. 2015, Eq. 58).

    Args:
        model: And the options of :class:`LRP`, without ``rule``.
        epsilon: Greater than 0, in the units of the pre-activations.
        bias: Whether the bias takes its share of the relevance, which is lost.

    Raises:
        ValueError: As :class:`LRP`; for an epsilon not above 0.
    """

    name = "lrp.epsilon"

    def __init__(self, model: keras.Model, *, epsilon: float = 1e-7, bias: bool = True, **options: Any):
        one_of("bias", bias, (True, False))
        epsilon = number("epsilon", epsilon, 0, above=True)
        super().__init__(model, rule=Epsilon(epsilon, bias), **options)
        self._keep_options(epsilon=epsilon, bias=bias)


class LRPWSquare(_Named):
    """LRP with the rule w²: shares by the squared weights (Montavon et al. 2017).

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.w_square"

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, rule="WSquare", **options)


class LRPFlat(_Named):
    """LRP with the flat rule: equal shares (Lapuschkin et al. 2017).

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.flat"

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, rule="Flat", **options)


class LRPAlphaBeta(_Named):
    """LRP with the alpha-beta rule (Bach et al. 2015, Eq. 60).

    Args:
        model: And the options of :class:`LRP`, without ``rule``.
        alpha, beta: At least 1 and 0, with alpha - beta = 1; one of them is
            enough.
        bias: Whether a bias counts with the contributions of its sign.

    Raises:
        ValueError: As :class:`LRP`; for other alpha and beta, and without
            either.
    """

    name = "lrp.alpha_beta"

    def __init__(
        self, model: keras.Model, *, alpha: float | None = None, beta: float | None = None, bias: bool = True,
        **options: Any,
    ):  # fmt: skip
        one_of("bias", bias, (True, False))
        if alpha is None and beta is None:
            raise ValueError(f"{self.name!r} needs alpha= or beta=, such as alpha=2")
        alpha = 1 + number("beta", beta, 0) if alpha is None else number("alpha", alpha, 1)
        beta = alpha - 1 if beta is None else number("beta", beta, 0)
        super().__init__(model, rule=AlphaBeta(alpha, beta, bias), **options)
        self._keep_options(alpha=alpha, beta=beta, bias=bias)


class _FixedAlphaBeta(LRPAlphaBeta):
    """The alpha-beta rule with its parameters fixed by the method's name."""

    _fixed = frozenset({"rule", "alpha", "beta", "bias"})
    _set: ClassVar[dict[str, Any]]

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, **self._set, **options)


class LRPAlpha2Beta1(_FixedAlphaBeta):
    """LRP with the alpha-beta rule, alpha 2 and beta 1.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.alpha_2_beta_1"
    _set: ClassVar[dict[str, Any]] = {"alpha": 2.0, "beta": 1.0}


class LRPAlpha2Beta1IgnoreBias(_FixedAlphaBeta):
    """LRP with the alpha-beta rule, alpha 2 and beta 1, without biases.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.alpha_2_beta_1_IB"
    _set: ClassVar[dict[str, Any]] = {"alpha": 2.0, "beta": 1.0, "bias": False}


class LRPAlpha1Beta0(_FixedAlphaBeta):
    """LRP with the alpha-beta rule, alpha 1 and beta 0: positive contributions only.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.alpha_1_beta_0"
    _set: ClassVar[dict[str, Any]] = {"alpha": 1.0, "beta": 0.0}


class LRPAlpha1Beta0IgnoreBias(_FixedAlphaBeta):
    """LRP with the alpha-beta rule, alpha 1 and beta 0, without biases.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.alpha_1_beta_0_IB"
    _set: ClassVar[dict[str, Any]] = {"alpha": 1.0, "beta": 0.0, "bias": False}


class LRPZPlus(LRPAlpha1Beta0IgnoreBias):
    """LRP with the rule z+ (Montavon et al. 2017): another name for "lrp.alpha_1_beta_0_IB".

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.z_plus"


class LRPZPlusFast(_Named):
    """LRP with the rule z+, inputs taken to hold no negative value.

    Args, Raises: As :class:`LRP`, without ``rule``.
    """

    name = "lrp.z_plus_fast"

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, rule="ZPlusFast", **options)


class LRPSequentialPresetA(_Named):
    """LRP for convolutional networks: epsilon for Dense layers, alpha 1 beta 0 for convolutions.

    Args:
        model: And the options of :class:`LRP`, without ``rule``. Batch
            normalisation has the rule "AlphaBetaX2m100", as in iNNvestigate,
            unless ``bn_layer_rule`` says otherwise.
        epsilon: Of the Dense layers' rule, greater than 0.

    Raises:
        ValueError: As :class:`LRP`; for an epsilon not above 0.
    """

    name = "lrp.sequential_preset_a"
    convolutions = "Alpha1Beta0"

    def __init__(self, model: keras.Model, *, epsilon: float = 0.1, **options: Any):
        epsilon = number("epsilon", epsilon, 0, above=True)
        super().__init__(model, rule={"dense": Epsilon(epsilon), "conv": self.convolutions}, **options)
        self._keep_options(epsilon=epsilon)

    def default_bn_rule(self) -> rules.Rule:
        return AlphaBetaX()


class LRPSequentialPresetB(LRPSequentialPresetA):
    """LRP for convolutional networks: epsilon for Dense layers, alpha 2 beta 1 for convolutions.

    Args, Raises: As :class:`LRPSequentialPresetA`.
    """

    name = "lrp.sequential_preset_b"
    convolutions = "Alpha2Beta1"


class LRPSequentialPresetAFlat(LRPSequentialPresetA):
    """:class:`LRPSequentialPresetA` with the flat rule at the first layers with weights.

    Args, Raises: As there, without ``input_layer_rule``.
    """

    name = "lrp.sequential_preset_a_flat"
    _fixed = frozenset({"rule", "input_layer_rule"})

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, input_layer_rule="Flat", **options)


class LRPSequentialPresetBFlat(LRPSequentialPresetB):
    """:class:`LRPSequentialPresetB` with the flat rule at the first layers with weights.

    Args, Raises: As there, without ``input_layer_rule``.
    """

    name = "lrp.sequential_preset_b_flat"
    _fixed = frozenset({"rule", "input_layer_rule"})

    def __init__(self, model: keras.Model, **options: Any):
        super().__init__(model, input_layer_rule="Flat", **options)


class LRPSequentialPresetBFlatUntilIdx(LRPSequentialPresetBFlat):
    """:class:`LRPSequentialPresetBFlat` with the flat rule up to a layer.

    Args:
        model: And the options of :class:`LRPSequentialPresetBFlat`.
        until_layer_idx: Index in ``model.layers`` of the last layer to have
            the flat rule; None for the first layers with weights only.

    Raises:
        ValueError: As :class:`LRPSequentialPresetB`.
    """

    name = "lrp.sequential_preset_b_flat_until_idx"
    _fixed = frozenset({"rule", "input_layer_rule", "until_layer_rule"})

    def __init__(self, model: keras.Model, *, until_layer_idx: int | None = None, **options: Any):
        until = {} if until_layer_idx is None else {"until_layer_idx": until_layer_idx, "until_layer_rule": "Flat"}
        super().__init__(model, **until, **options)
