"""Every method beside the real iNNvestigate: python -m tests.against [MODEL ...] [--methods METHOD ...] [--all]

Prints a table. A process of its own: oneDNN is off in it, which rounds
convolutions otherwise than TensorFlow's own code, and tf.keras is tf-keras, which iNNvestigate needs.
"""

import argparse
import functools
import json
import os
import pathlib

if __name__ == "__main__":
    os.environ |= {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
import numpy as np
import tensorflow as tf

from mipin_keras import create_analyzer
from reproduce_paper import models
from tests.networks import samples, with_weights

L = keras.layers


def dense(activation="relu", head=None):
    layers = [L.Dense(9, activation=activation), L.Dropout(0.5), L.Dense(7, activation=activation), L.Dense(4, head)]
    return with_weights(keras.Sequential([keras.Input((12,)), *layers]))


def dense_layers(relu, head=None):
    """The activations as layers of their own."""
    layers = [L.Dense(9), relu(), L.Dense(7), relu(), L.Dense(4), *([head()] if head else [])]
    return with_weights(keras.Sequential([keras.Input((12,)), *layers]))


def dense_without_bias():
    layers = [L.Dense(9, "relu", use_bias=False), L.Dense(7, "relu", use_bias=False), L.Dense(4, use_bias=False)]
    return with_weights(keras.Sequential([keras.Input((12,)), *layers]))


def convolution(padding="valid", strides=1, pool=None, last=L.Flatten, use_bias=True, **options):
    x = keras.Input((9, 8, 2))
    y = L.Conv2D(4, 3, activation="relu", use_bias=use_bias)(x)
    y = L.Conv2D(5, 3, padding=padding, strides=strides, activation="relu", use_bias=use_bias, **options)(y)
    y = last()(pool(y) if pool else y)
    return with_weights(keras.Model(x, L.Dense(4, use_bias=use_bias)(y)))


def convolution_1d():
    layers = [L.Conv1D(4, 3, activation="relu", padding="same"), L.MaxPooling1D(2), L.Conv1D(5, 3, activation="relu")]
    return with_weights(keras.Sequential([keras.Input((16, 3)), *layers, L.Flatten(), L.Dense(4)]))


def convolution_3d():
    layers = [L.Conv3D(5, 2, activation="relu"), L.Conv3D(4, 2, activation="relu"), L.AveragePooling3D(2)]
    layers += [L.Flatten(), L.Dense(4)]
    return with_weights(keras.Sequential([keras.Input((6, 5, 4, 2)), *layers]))


def structural():
    layers = [
        L.ZeroPadding2D(1), L.Conv2D(4, 3, activation="relu"), L.Cropping2D(1), L.UpSampling2D(2), L.Permute((2, 1, 3)),
        L.Conv2D(3, 3, activation="relu"), L.Reshape((-1,)), L.Dense(4),
    ]  # fmt: skip
    return with_weights(keras.Sequential([keras.Input((8, 7, 2)), *layers]))


def normalized(after=False, plain=True):
    """Batch normalisation before or after the ReLU; plain: a variance of 1 and a mean of 0, on which all agree."""
    x = keras.Input((8, 7, 2))
    y = x
    for filters in (4, 5):
        y = L.Conv2D(filters, 3)(y)
        bn, relu = L.BatchNormalization(), L.Activation("relu")
        y = bn(relu(y)) if after else relu(bn(y))
    model = with_weights(keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(y))))
    if plain:
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                gamma, beta, mean, variance = layer.get_weights()
                layer.set_weights([gamma, beta, 0 * mean, 0 * variance + 1])
    return model


def merged(merge):
    x = keras.Input((8, 7, 2))
    y = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    z = L.Conv2D(4, 3, padding="same", activation="relu")(y)
    y = L.Conv2D(3, 3, activation="relu")(merge()([y, z]))
    return with_weights(keras.Model(x, L.Dense(4)(L.Flatten()(y))))


def nested():
    inner = keras.Sequential([keras.Input((9,)), L.Dense(7, "relu"), L.Dense(6, "relu")], name="inner")
    x = keras.Input((12,))
    return with_weights(keras.Model(x, L.Dense(4)(inner(L.Dense(9, "relu")(x)))))


def shared():
    layer = L.Dense(9, "relu", name="same")
    x = keras.Input((9,))
    return with_weights(keras.Model(x, L.Dense(4)(layer(layer(x)))))


def operations():
    x = keras.Input((12,))
    y = keras.ops.relu(L.Dense(9)(x))
    return with_weights(keras.Model(x, L.Dense(4)(keras.ops.relu(L.Dense(7)(y)))))


def positive(model):
    """``model`` with larger logits: where all are negative, a map of deep Taylor is all zeros."""
    head = [layer for layer in model.layers if isinstance(layer, L.Dense)][-1]
    if head.use_bias:
        kernel, bias = head.get_weights()
        head.set_weights([kernel, bias + 2])
    return model


@functools.cache
def large(kind, size):
    """An architecture of keras.applications with random weights and fresh batch normalisation, images of ``size``."""
    keras.utils.set_random_seed(0)
    return getattr(keras.applications, kind)(weights=None, input_shape=(size, size, 3))


MODELS = {
    "dense": dense,
    "dense, Activation": lambda: dense_layers(lambda: L.Activation("relu")),
    "dense, ReLU()": lambda: dense_layers(L.ReLU),
    "dense, softmax": lambda: dense(head="softmax"),
    "dense, Softmax()": lambda: dense_layers(lambda: L.Activation("relu"), L.Softmax),
    "dense, no bias": dense_without_bias,
    "conv valid": convolution,
    "conv same": lambda: convolution("same"),
    "conv valid, stride 2": lambda: convolution(strides=2),
    "conv same, stride 2": lambda: convolution("same", 2),
    "conv same, stride (2, 1)": lambda: convolution("same", (2, 1)),
    "conv, dilation 2": lambda: convolution(dilation_rate=2),
    "conv, no bias": lambda: convolution("same", use_bias=False),
    "conv 1d": convolution_1d,
    "conv 3d": convolution_3d,
    "structural": structural,
    "max pooling": lambda: convolution("same", pool=L.MaxPooling2D(2)),
    "max pooling same, overlapping": lambda: convolution("same", pool=L.MaxPooling2D(3, 2, padding="same")),
    "average pooling": lambda: convolution("same", pool=L.AveragePooling2D(2)),
    "average pooling same, overlapping": lambda: convolution("same", pool=L.AveragePooling2D(3, 2, padding="same")),
    "global average pooling": lambda: convolution("same", last=L.GlobalAveragePooling2D),
    "global max pooling": lambda: convolution("same", last=L.GlobalMaxPooling2D),
    "batch normalisation, ReLU": normalized,
    "ReLU, batch normalisation": lambda: normalized(after=True),
    "batch normalisation, any": lambda: normalized(plain=False),
    "Add": lambda: merged(L.Add),
    "Concatenate": lambda: merged(L.Concatenate),
    "Average": lambda: merged(L.Average),
    "nested": nested,
    "shared": shared,
    "keras.ops.relu": operations,
}
PAPER = {
    "MLP of the paper": lambda: with_weights(models.mlp_m()),
    "CNN of the paper": lambda: with_weights(models.cnn_m()),
}
MODELS |= PAPER
LARGE = {f"{kind} {size}": (kind, size) for kind in ("VGG19", "ResNet50") for size in (64, 224)}

LRP = [
    "lrp.z", "lrp.epsilon", "lrp.w_square", "lrp.flat", "lrp.alpha_2_beta_1", "lrp.alpha_2_beta_1_IB",
    "lrp.alpha_1_beta_0", "lrp.alpha_1_beta_0_IB", "lrp.z_plus", "lrp.z_plus_fast", "lrp.sequential_preset_a",
    "lrp.sequential_preset_b", "lrp.sequential_preset_a_flat", "lrp.sequential_preset_b_flat",
]  # fmt: skip
# Label: the method, and its options on both sides.
METHODS = {
    "gradient": ("gradient", {}),
    "gradient, abs": ("gradient", {"postprocess": "abs"}),
    "gradient, square": ("gradient", {"postprocess": "square"}),
    "input_t_gradient": ("input_t_gradient", {}),
    "integrated_gradients": ("integrated_gradients", {"steps": 8}),
    "integrated_gradients, reference": ("integrated_gradients", {"steps": 8, "reference_inputs": 0.5}),
    "deconvnet": ("deconvnet", {}),
    "guided_backprop": ("guided_backprop", {}),
    **{name: (name, {}) for name in LRP},
    "lrp, Z": ("lrp", {"rule": "Z"}),
    "lrp.epsilon, 0.5": ("lrp.epsilon", {"epsilon": 0.5}),
    "lrp.epsilon, no bias": ("lrp.epsilon", {"bias": False}),
    "lrp.alpha_beta, 3": ("lrp.alpha_beta", {"alpha": 3.0, "bias": False}),
    "lrp.epsilon, Flat below": ("lrp.epsilon", {"input_layer_rule": "Flat"}),
    "lrp.epsilon, bounded below": ("lrp.epsilon", {"input_layer_rule": (-5.0, 5.0)}),
    "deep_taylor": ("deep_taylor", {}),
    "deep_taylor.bounded": ("deep_taylor.bounded", {"low": -5.0, "high": 5.0}),
}
# iNNvestigate takes half a minute a method to walk back through ResNet50.
QUICK_METHODS = {"VGG19": ["guided_backprop", "lrp.epsilon"], "ResNet50": ["lrp.epsilon"]}
LARGE_METHODS = [
    "gradient", "input_t_gradient", "deconvnet", "guided_backprop", "lrp.z", "lrp.epsilon", "lrp.w_square", "lrp.flat",
    "lrp.alpha_2_beta_1", "lrp.alpha_1_beta_0", "lrp.z_plus", "lrp.sequential_preset_a", "lrp.sequential_preset_b",
    "deep_taylor", "deep_taylor.bounded",
]  # fmt: skip


# The models that every setting is tried on.
CORE = [
    "dense", "dense, no bias", "conv same, stride 2", "conv, no bias", "max pooling same, overlapping",
    "average pooling", "batch normalisation, any", "Add",
]  # fmt: skip


# What is tried on the others: every rule once.
EACH_RULE = [
    "gradient", "integrated_gradients", "deconvnet", "guided_backprop", "lrp.z", "lrp.epsilon", "lrp.w_square",
    "lrp.flat", "lrp.alpha_2_beta_1_IB", "lrp.sequential_preset_a_flat", "deep_taylor", "deep_taylor.bounded",
]  # fmt: skip


def methods_for(name, every=False):
    """The methods and settings that a model is tried with; every one of them on every small model, if so."""
    if name in LARGE:
        return LARGE_METHODS if every else QUICK_METHODS[LARGE[name][0]]
    if name in PAPER:
        return LARGE_METHODS
    return list(METHODS) if every or name in CORE else EACH_RULE


def compare(name, method):
    """A dict: the largest difference as a share of the map's largest value, and each side's from a float64 run."""
    key, options = METHODS[method]
    if name in LARGE:
        model, size = large(*LARGE[name]), 2
    else:
        model, size = positive(MODELS[name]()), 6
    x = np.clip(samples(model.input_shape[1:], size, seed=1), -5, 5)
    row = {"model": name, "method": method}
    ours = create_analyzer(key, model, **options).analyze(x)
    check = {"disable_model_checks": True} if name == "dense, ReLU()" and key.startswith("lrp") else {}
    try:
        theirs = create_analyzer(f"innvestigate:{key}", model, **options, **check).analyze(x)
    except (RuntimeError, ValueError) as problem:
        return row | {"fails": str(problem)}
    scale = max(np.abs(ours).max(), np.abs(theirs).max()) or 1.0
    row["difference"] = float(np.abs(ours - theirs).max() / scale)
    if not row["difference"] <= 1e-5 and name not in LARGE:
        try:
            keras.config.set_floatx("float64")
            keras.config.set_dtype_policy("float64")
            exact = MODELS[name]()
        finally:
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy("float32")
        exact.set_weights(model.get_weights())
        try:
            truth = create_analyzer(key, exact, **options).analyze(x)
        except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):  # TensorFlow has no float64 AvgPool3D
            return row
        row["ours"] = float(np.abs(ours - truth).max() / scale)
        row["theirs"] = float(np.abs(theirs - truth).max() / scale)
    return row


def main(names, methods=None, path=None, every=False):
    rows = []
    for name in names or MODELS:
        for method in (method for method in methods_for(name, every) if not methods or method in methods):
            row = compare(name, method)
            rows.append(row)
            found = row.get("fails") or " ".join(
                f"{key} {row[key]:.1e}" for key in ("difference", "ours", "theirs") if key in row
            )
            print(f"{name:34} {method:32} {found}", flush=True)
            if name not in LARGE:
                keras.backend.clear_session()
    if path:
        path.write_text(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.against")
    names = ", ".join([*MODELS, *LARGE])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {names}; default: the small ones")
    parser.add_argument("--methods", nargs="*", metavar="METHOD", choices=METHODS, help="default: all of a model's")
    parser.add_argument("--all", action="store_true", help="every setting on every model, which takes twice as long")
    parser.add_argument("--json", type=pathlib.Path, help="a file to write the same to")
    args = parser.parse_args()
    main(args.models, args.methods, args.json, args.all)
