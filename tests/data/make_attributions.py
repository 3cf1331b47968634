"""Write attributions.npz: models, inputs, and the maps that MIP-IN gave of them with one TensorFlow and Keras.

Other versions are held to it by tests/test_versions.py. After a change that is meant to change the numbers::

    python -m tests.data.make_attributions
"""

import pathlib

import keras
import numpy as np

import mipin_keras
from tests.networks import cnn, mlp, samples

PATH = pathlib.Path(__file__).with_name("attributions.npz")

# Model, shape of an input, the options of the analyzer. A few hundred rows: a convolution's are sampled by the seed.
CASES = {
    "mlp": (mlp, (12,), {}),
    "mlp_class": (mlp, (12,), {"samples": "class", "mask_input": True}),
    "cnn": (cnn, (7, 6, 2), {"rows": None}),
    "cnn_sampled": (cnn, (7, 6, 2), {"rows": 600, "seed": 3}),
}


def maps(model, x, options):
    """Attributions and source signals of the first samples for the class with the largest logit."""
    analyzer = mipin_keras.create_analyzer("mipin", model, verbose=0, **options).fit(x)
    return analyzer.analyze(x[:12]), analyzer.source_signal(x[:12])


def main():
    """Write the file, and say what is in it."""
    arrays = {}
    for name, (make, shape, options) in CASES.items():
        model, x = make(), samples(shape, 80)
        arrays |= {f"{name}/weights/{i}": w for i, w in enumerate(model.get_weights())}
        arrays[f"{name}/x"] = x
        arrays[f"{name}/attribution"], arrays[f"{name}/source_signal"] = maps(model, x, options)
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH.name}: {len(arrays)} arrays, {PATH.stat().st_size} bytes, Keras {keras.__version__}")


if __name__ == "__main__":
    main()
