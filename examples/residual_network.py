"""A residual network with squeeze and excitation, explained at feature maps: ``python -m examples.residual_network``.

Sums, tensors that several layers read and gates need nothing special. The fit
writes what it has learned into a folder, layer by layer: stop it, run it
again, and it goes on from there.
"""

import argparse
import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits

import mipin_keras
from mipin_keras.plotting import plot

L = keras.layers


def block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Two convolutions, gated, around which the input goes too."""
    y = L.Conv2D(filters, 3, padding="same", activation="relu")(x)
    y = L.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = L.BatchNormalization()(y)
    # Squeeze and excitation: a factor for each channel says how much of it passes.
    gate = L.GlobalAveragePooling2D(keepdims=True)(y)
    gate = L.Dense(filters // 4, activation="relu")(gate)
    gate = L.Dense(filters, activation="sigmoid")(gate)
    y = L.Multiply()([y, gate])
    return L.ReLU(name=name)(L.Add()([x, y]))


def network() -> keras.Model:
    """Feature maps "block1" of 8x8 and "block2" of 4x4."""
    image = keras.Input((8, 8, 1))
    x = block(L.Conv2D(16, 3, padding="same", activation="relu")(image), 16, "block1")
    x = L.Conv2D(32, 1, activation="relu")(L.MaxPooling2D()(x))
    x = L.Flatten()(block(x, 32, "block2"))
    return keras.Model(image, L.Dense(10, activation="softmax")(x))


def main(out: pathlib.Path, epochs: int = 20, samples: int = 1500, verbose: int = 1) -> dict[str, np.ndarray]:
    """Explain a test digit of each class; returns the maps ``(10, 8, 8)`` by the feature map that they come from."""
    # Your model and your data would stand here.
    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype("float32")
    x_train, y_train, x_test, y_test = x[:samples], digits.target[:samples], x[1500:], digits.target[1500:]
    saved = out / "residual_network.keras"
    if saved.is_file():
        model = keras.models.load_model(saved)
    else:
        keras.utils.set_random_seed(0)
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x_train, y_train, epochs=epochs, verbose=0)
        out.mkdir(parents=True, exist_ok=True)
        model.save(saved)

    chosen = x_test[[np.flatnonzero(y_test == digit)[0] for digit in range(10)]]
    maps = {}
    for name in ("block1", "block2"):
        analyzer = mipin_keras.create_analyzer("mipin", model, input_layer=name, verbose=verbose)
        # The folder belongs to this model and these data: another model needs another one.
        analyzer.fit(x_train, batch_size=128, checkpoint=out / f"residual_network_{name}")
        # What speaks for the class, as one value a pixel: ReLU, mean over the channels, resized to the image.
        maps[name] = analyzer.analyze(chosen, reduce="relu_mean")
    guesses = analyzer.logits(chosen).argmax(axis=1)

    cam = mipin_keras.create_analyzer("grad_cam", model, layer="block2").analyze(chosen)
    titles = [f"taken for {guess}" for guess in guesses]
    figure = plot.grid(
        {"MIP-IN, block1": maps["block1"], "MIP-IN, block2": maps["block2"], "Grad-CAM, block2": cam},
        images=chosen,
        titles=titles,
    )
    print(f"drew {plot.save(figure, out / 'residual_network.png')}")
    return maps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.residual_network", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo_output"), help="folder of the results")
    main(parser.parse_args().out)
