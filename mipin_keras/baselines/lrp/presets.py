"""The named methods of layer-wise relevance propagation: a table from a method's name to its rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...checks import number, one_of
from .rules import AlphaBeta, AlphaBetaX, Epsilon, Flat, Gamma, Rule, WSquare, Z


class Composite(NamedTuple):
    """Which rule the layers of a model get.

    Attributes:
        dense: For Dense layers.
        conv: For convolutions.
        normalization: For batch normalisation.
        first: For the first layers with weights: a rule, ``(low, high)`` for
            the rule z^B between these bounds of the input, or None for that
            of the other layers.
        until: For the layers up to the one that ``until_layer_idx`` names.
        options: The preset's own options, as they were understood.
    """

    dense: Rule
    conv: Rule
    normalization: Rule
    first: Any = None
    until: Rule | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - a tuple's default, which nobody changes


class Preset(NamedTuple):
    """One named method.

    Attributes:
        composite: From the preset's own options, which are its keyword
            arguments, to the rules.
        text: The method's docstring.
        settles: The options of :class:`~.analyzer.LRP` that it has set for
            good.
    """

    composite: Callable[..., Composite]
    text: str
    settles: frozenset[str] = frozenset()


def everywhere(rule: Rule, **options: Any) -> Composite:
    """One rule for all layers with weights and for batch normalisation."""
    return Composite(rule, rule, rule, options=options)


def _always(rule: Rule) -> Callable[[], Composite]:
    return lambda: everywhere(rule)


def _epsilon(*, epsilon: float = 1e-7, bias: bool = True) -> Composite:
    epsilon = number("epsilon", epsilon, 0, above=True)
    return everywhere(Epsilon(epsilon, bias), epsilon=epsilon, bias=bias)


def _alpha_beta(*, alpha: float | None = None, beta: float | None = None, bias: bool = True) -> Composite:
    bias = one_of("bias", bias, (True, False))
    if alpha is None and beta is None:
        raise ValueError("'lrp.alpha_beta' needs alpha= or beta=: expected one of them, received none; such as alpha=2")
    alpha = 1 + number("beta", beta, 0) if alpha is None else number("alpha", alpha, 1)
    beta = alpha - 1 if beta is None else number("beta", beta, 0)
    return everywhere(AlphaBeta(alpha, beta, bias), alpha=alpha, beta=beta, bias=bias)


def _gamma(*, gamma: float = 0.25, bias: bool = True) -> Composite:
    gamma = number("gamma", gamma, 0)
    return everywhere(Gamma(gamma, bias), gamma=gamma, bias=bias)


def _sequential(conv: Rule, first: Rule | None = None, until: Rule | None = None) -> Callable[..., Composite]:
    """iNNvestigate's presets: epsilon for Dense layers, another rule for convolutions."""

    def composite(*, epsilon: float = 0.1) -> Composite:
        epsilon = number("epsilon", epsilon, 0, above=True)
        return Composite(Epsilon(epsilon), conv, AlphaBetaX(), first, until, {"epsilon": epsilon})

    return composite


def _epsilon_plus(*, epsilon: float = 1e-6) -> Composite:
    epsilon = number("epsilon", epsilon, 0, above=True)
    dense = Epsilon(epsilon)
    return Composite(dense, AlphaBeta(bias=False), dense, options={"epsilon": epsilon})


def _epsilon_gamma_box(*, low: Any = None, high: Any = None, epsilon: float = 1e-6, gamma: float = 0.25) -> Composite:
    epsilon, gamma = number("epsilon", epsilon, 0, above=True), number("gamma", gamma, 0)
    dense = Epsilon(epsilon)
    options = {"low": low, "high": high, "epsilon": epsilon, "gamma": gamma}
    return Composite(dense, Gamma(gamma), dense, (low, high), options=options)


_PLAIN = "\n\nArgs, Raises: As :class:`LRP`, without ``rule``."
_FLAT_FIRST = frozenset({"input_layer_rule"})
_SEQUENTIAL = """

Args:
    model: And the options of :class:`LRP`, without ``rule``. Batch
        normalisation has the rule "AlphaBetaX2m100", as in iNNvestigate,
        unless ``bn_layer_rule`` says otherwise.
    epsilon: Of the Dense layers' rule, greater than 0.

Raises:
    ValueError: As :class:`LRP`; for an epsilon not above 0."""

PRESETS: dict[str, Preset] = {
    "lrp.z": Preset(
        _always(Z()), "LRP with the rule Z: relevance in proportion to each input's share in z, with bias." + _PLAIN
    ),
    "lrp.epsilon": Preset(
        _epsilon,
        """LRP with the epsilon rule, the paper's "LRP" (Bach et al. 2015, Eq. 58).

Args:
    model: And the options of :class:`LRP`, without ``rule``.
    epsilon: Greater than 0, in the units of the pre-activations.
    bias: Whether the bias takes its share of the relevance, which is lost.

Raises:
    ValueError: As :class:`LRP`; for an epsilon not above 0.""",
    ),
    "lrp.w_square": Preset(
        _always(WSquare()), "LRP with the rule w²: shares by the squared weights (Montavon et al. 2017)." + _PLAIN
    ),
    "lrp.flat": Preset(_always(Flat()), "LRP with the flat rule: equal shares (Lapuschkin et al. 2017)." + _PLAIN),
    "lrp.gamma": Preset(
        _gamma,
        """LRP with the gamma rule: positive contributions count more (Montavon et al. 2019).

Args:
    model: And the options of :class:`LRP`, without ``rule``.
    gamma: At least 0: positive contributions count ``1 + gamma`` times.
    bias: Whether the bias takes its share of the relevance, which is lost.

Raises:
    ValueError: As :class:`LRP`; for a negative gamma.""",
    ),
    "lrp.alpha_beta": Preset(
        _alpha_beta,
        """LRP with the alpha-beta rule (Bach et al. 2015, Eq. 60).

Args:
    model: And the options of :class:`LRP`, without ``rule``.
    alpha, beta: At least 1 and 0, with alpha - beta = 1; one of them is
        enough.
    bias: Whether a bias counts with the contributions of its sign.

Raises:
    ValueError: As :class:`LRP`; for other alpha and beta, and without
        either.""",
    ),
    "lrp.alpha_2_beta_1": Preset(
        _always(AlphaBeta(2.0, 1.0)), "LRP with the alpha-beta rule, alpha 2 and beta 1." + _PLAIN
    ),
    "lrp.alpha_2_beta_1_IB": Preset(
        _always(AlphaBeta(2.0, 1.0, bias=False)),
        "LRP with the alpha-beta rule, alpha 2 and beta 1, without biases." + _PLAIN,
    ),
    "lrp.alpha_1_beta_0": Preset(
        _always(AlphaBeta()),
        "LRP with the alpha-beta rule, alpha 1 and beta 0: positive contributions only." + _PLAIN,
    ),
    "lrp.alpha_1_beta_0_IB": Preset(
        _always(AlphaBeta(bias=False)),
        "LRP with the alpha-beta rule, alpha 1 and beta 0, without biases." + _PLAIN,
    ),
    "lrp.z_plus": Preset(
        _always(AlphaBeta(bias=False)),
        'LRP with the rule z+ (Montavon et al. 2017): another name for "lrp.alpha_1_beta_0_IB".' + _PLAIN,
    ),
    "lrp.z_plus_fast": Preset(
        _always(AlphaBeta(bias=False, nonnegative=True)),
        "LRP with the rule z+, inputs taken to hold no negative value." + _PLAIN,
    ),
    "lrp.sequential_preset_a": Preset(
        _sequential(AlphaBeta()),
        "LRP for convolutional networks: epsilon for Dense layers, alpha 1 beta 0 for convolutions." + _SEQUENTIAL,
    ),
    "lrp.sequential_preset_b": Preset(
        _sequential(AlphaBeta(2.0, 1.0)),
        "LRP for convolutional networks: epsilon for Dense layers, alpha 2 beta 1 for convolutions." + _SEQUENTIAL,
    ),
    "lrp.sequential_preset_a_flat": Preset(
        _sequential(AlphaBeta(), Flat()),
        '"lrp.sequential_preset_a" with the flat rule at the first layers with weights.' + _SEQUENTIAL,
        _FLAT_FIRST,
    ),
    "lrp.sequential_preset_b_flat": Preset(
        _sequential(AlphaBeta(2.0, 1.0), Flat()),
        '"lrp.sequential_preset_b" with the flat rule at the first layers with weights.' + _SEQUENTIAL,
        _FLAT_FIRST,
    ),
    "lrp.sequential_preset_b_flat_until_idx": Preset(
        _sequential(AlphaBeta(2.0, 1.0), Flat(), Flat()),
        '"lrp.sequential_preset_b_flat" with the flat rule up to the layer ``until_layer_idx``.' + _SEQUENTIAL,
        _FLAT_FIRST | {"until_layer_rule"},
    ),
    "lrp.epsilon_plus": Preset(
        _epsilon_plus,
        """LRP for convolutional networks: epsilon for Dense layers, z+ for convolutions (zennit's EpsilonPlus).

Args:
    model: And the options of :class:`LRP`, without ``rule``. Batch
        normalisation has the Dense layers' rule unless ``bn_layer_rule`` says
        otherwise.
    epsilon: Of the Dense layers' rule, greater than 0.

Raises:
    ValueError: As :class:`LRP`; for an epsilon not above 0.""",
    ),
    "lrp.epsilon_gamma_box": Preset(
        _epsilon_gamma_box,
        """LRP for images: epsilon for Dense layers, gamma for convolutions, z^B first (zennit's EpsilonGammaBox).

Args:
    model: And the options of :class:`LRP`, without ``rule``,
        ``input_layer_rule`` and ``input_layer``. Batch normalisation has the Dense layers' rule
        unless ``bn_layer_rule`` says otherwise.
    low, high: The bounds of the input: numbers, or arrays that broadcast to
        one sample, such as one a channel.
    epsilon: Of the Dense layers' rule, greater than 0.
    gamma: Of the convolutions' rule, at least 0.

Raises:
    ValueError: As :class:`LRP`; for bounds that are missing, not finite or
        inverted; when analyzing, for input outside of them.""",
        _FLAT_FIRST | {"input_layer"},
    ),
}
