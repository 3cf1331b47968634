"""Small Keras models of known weights, and what tests ask of a model or a layer."""

import keras
import numpy as np

from mipin_keras.graph.model_graph import ModelGraph
from mipin_keras.mipin.inverse import make_inverse


def with_weights(model, seed=0):
    """``model`` with weights of NumPy's, the same for every version of TensorFlow and Keras."""
    rng = np.random.default_rng(seed)
    weights = []
    for old, variable in zip(model.get_weights(), model.weights, strict=True):
        spread = 0.3 if old.ndim == 1 else 1.4 / np.sqrt(np.prod(old.shape[:-1]))
        new = (spread * rng.standard_normal(old.shape)).astype("float32")
        weights.append(1 + np.abs(new) if "variance" in variable.path else new)
    model.set_weights(weights)
    return model


def balanced(model):
    """``model`` with its last layer's bias set so that no class is the largest everywhere."""
    x = samples(model.input_shape[1:], 200)
    kernel, _ = model.layers[-1].get_weights()
    logits = np.asarray(keras.Model(model.inputs, model.layers[-2].output)([x])) @ kernel
    model.layers[-1].set_weights([kernel, -logits.mean(axis=0)])
    return model


def mlp(inputs=12, hidden=(10, 8), units=4, activation="relu", head=None, seed=3):
    """Dense layers "dense1", "dense2", ... and "head"."""
    layers = [keras.layers.Dense(n, activation=activation, name=f"dense{i + 1}") for i, n in enumerate(hidden)]
    layers.append(keras.layers.Dense(units, activation=head, name="head"))
    return balanced(with_weights(keras.Sequential([keras.Input((inputs,)), *layers]), seed))


def cnn(shape=(7, 6, 2), filters=3, units=3, seed=3):
    """Layers "conv", "pool", "flatten" and "head": a ReLU convolution, max pooling, Dense."""
    layers = [
        keras.layers.Conv2D(filters, 3, activation="relu", name="conv"),
        keras.layers.MaxPooling2D(2, name="pool"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(units, name="head"),
    ]
    return balanced(with_weights(keras.Sequential([keras.Input(shape), *layers]), seed))


def residual(shape=(7, 6, 2), filters=3, units=3, seed=3):
    """Layers "conv", "bn" and "relu", an Add "add" around "conv2", mean "pool", "flatten" and "head"."""
    layers = keras.layers
    x = keras.Input(shape)
    y = layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    y = layers.Activation("relu", name="relu")(layers.BatchNormalization(name="bn")(y))
    z = layers.Conv2D(filters, 3, padding="same", activation="relu", name="conv2")(y)
    y = layers.Add(name="add")([y, z])
    y = layers.Flatten(name="flatten")(layers.AveragePooling2D(2, name="pool")(y))
    return balanced(with_weights(keras.Model(x, layers.Dense(units, name="head")(y)), seed))


# What an analyzer cannot do without.
NEEDED = {
    "lrp": {"rule": "Epsilon"},
    "lrp.alpha_beta": {"alpha": 2.0},
    "lrp.epsilon_gamma_box": {"low": -10.0, "high": 10.0},
    "deep_taylor.bounded": {"low": -10.0, "high": 10.0},
}


def layers_of(model):
    """The layers of :func:`mlp` and :func:`cnn` as tests.reference.Algorithm1 takes them."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.MaxPooling2D):
            found.append(("maxpool", tuple(layer.pool_size)))
        elif isinstance(layer, keras.layers.Flatten):
            found.append(("flatten",))
        else:
            found.append(("dense" if isinstance(layer, keras.layers.Dense) else "conv", *layer.get_weights()))
            if layer.activation is keras.activations.relu:
                found.append(("relu",))
    return found


def samples(shape, n, seed=0):
    """float32 (n, *shape) with zeros in it, some of the columns correlated."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    x = rng.normal(size=(n, size)) @ (np.eye(size) + 0.5 * rng.normal(size=(size, size)) / np.sqrt(size))
    return (np.maximum(x + 0.7, 0)).reshape(n, *shape).astype("float32")


def step_of(layer, shape):
    """The first step of a model that starts with ``layer`` on inputs (n, *shape)."""
    layers = [keras.Input(shape), layer, keras.layers.Flatten(name="_flat"), keras.layers.Dense(1, name="_head")]
    return ModelGraph(keras.Sequential(layers)).steps[0]


def operation_step(function, shape):
    """The first step of a model that starts with ``function``, of keras.ops, on inputs (n, *shape)."""
    x = keras.Input(shape)
    y = function(x)
    for _ in range(len(y.shape) - 2):
        y = keras.ops.max(y, axis=1)
    return ModelGraph(keras.Model(x, keras.layers.Dense(1)(y) if len(y.shape) > 1 else y[:, None])).steps[0]


def inverse_of(layer, shape, **options):
    """The inverse of ``layer`` on inputs (n, *shape)."""
    return make_inverse(step_of(layer, shape), **options)


def fitted_weights(inverse, signal, x, ridge, record=()):
    """A learned inverse's float64 weights from all rows of some samples."""
    sums = inverse.regression()
    inverse.add_rows(sums, signal, x, None, record)
    solution = sums.solve(ridge)
    return inverse.assemble(solution.kernel, solution.bias)


def close(found, wanted, tolerance):
    """Whether ``found`` is ``wanted`` up to ``tolerance`` of its largest value."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        raise AssertionError(f"shapes {found.shape} and {wanted.shape}")
    return np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
