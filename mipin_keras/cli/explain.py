"""The command ``mipin explain``: reads a model and inputs, explains them, writes attributions and pictures."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from .._version import __version__
from ..analyzer import Analyzer
from ..channels import resized
from ..metrics import average_percentage_change
from ..plotting import plot
from ..plotting.colormaps import chosen, colormap
from ..registry import create_analyzer, load_analyzer, options_of
from ..saving.archive import open_file
from .files import load_model, read_array, write_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The names of the array to take from a file with several arrays, in order of preference.
FIT_KEYS = ("x", "X", "x_train", "X_train")
EXPLAIN_KEYS = ("x", "X", "x_test", "X_test")


def explain(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Explain a saved model on a file of inputs; write and print the results.

    All that can be checked is checked before the fit, because the fit takes
    long. ``attributions.npz`` gets ``attribution``, ``logits``, float32
    ``(n, neurons)``, ``neuron``, integers ``(n,)``, the explained ones, and
    ``about``, a JSON text; where the method has them also ``source_signal``
    and ``source_logits``, float32 ``(n, neurons)``.

    Args:
        args: The command line of ``mipin explain``.
        options: The options of the analyzer that the user has given.

    Raises:
        OSError, TypeError, ValueError, NotFittedError: If a file, an option
            or the data do not allow it; the message says which, and what to
            do.
    """
    sources = "--fit FIT.npz (inputs to fit from) and --load-fit FILE (a fit saved before)"
    if args.fit is not None and args.load_fit is not None:
        raise ValueError(f"expected one of {sources}, received both; leave one out")
    model = load_model(args.model, trust=args.trust_model)
    sizes: dict[str, Any] = {"batch_size": args.batch_size}
    sizes |= {} if args.memory is None else {"memory": args.memory}
    x, label = read_array(args.explain, args.explain_key, "--explain", EXPLAIN_KEYS)
    if args.bands is not None and (np.ndim(x) != 4 or max(args.bands) >= x.shape[-1]):
        raise ValueError(
            f"expected --bands of images (n, height, width, channels), counted from 0, received --bands "
            f"{','.join(map(str, args.bands))} for inputs of shape {np.shape(x)}; leave out --bands, or name others"
        )
    analyzer = _analyzer(args, options, model, None if args.classes == "all" else args.classes)
    if not analyzer.fitted and args.fit is None:
        raise ValueError(f"expected one of {sources}, as {analyzer.name!r} needs a fit, received neither; give one")
    for flag, value in (("--fit", args.fit), ("--save-fit", args.save_fit), ("--fit-key", args.fit_key)):
        if analyzer.fitted and args.load_fit is None and value is not None:
            raise ValueError(
                f"expected no {flag}, as {analyzer.name!r} needs no fit, received {flag} {value}; leave out {flag}"
            )
    if args.checkpoint is not None and "checkpoint" not in inspect.signature(analyzer.fit).parameters:
        raise ValueError(
            f"expected no --checkpoint, as the fit of {analyzer.name!r} has no checkpoint, received --checkpoint "
            f"{args.checkpoint}; leave out --checkpoint"
        )
    if args.reduce is not None:
        analyzer._check_reducible()
    with _errors_naming(f"--explain {label}"):
        logits = analyzer.logits(x, **sizes)
    shares = analyzer.select(logits, args.neuron)
    neurons = shares.argmax(axis=1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.fit is not None:
        analyzer = _fitted(args, options, analyzer, np.flatnonzero(shares.any(axis=0)).tolist())
    if args.verbose:
        print(f"mipin: explaining {len(x)} samples of {label}", flush=True)

    found = {"attribution": analyzer.analyze(x, args.neuron, reduce=args.reduce, **sizes)}
    found |= {"neuron": neurons, "logits": logits}
    if hasattr(analyzer, "source_signal"):
        found["source_signal"] = analyzer.source_signal(x, args.neuron, **sizes)
        if analyzer.options.get("input_layer") is None:  # else it is no input of the model
            found["source_logits"] = analyzer.logits(found["source_signal"], **sizes)
    about = {"mipin_keras": __version__, "method": analyzer.name, "model": args.model.name}
    about |= {"options": analyzer.options, "reduce": args.reduce}
    write_npz(args.out / "attributions.npz", found | {"about": np.array(json.dumps(about))})
    print(f"mipin: completeness: {_completeness(found)}")
    print(f"mipin: wrote {args.out / 'attributions.npz'}", flush=True)
    print(f"mipin: {_draw_all(args, x, found)}", flush=True)


def _analyzer(
    args: argparse.Namespace, options: dict[str, Any], model: keras.Model, classes: list[int] | None
) -> Analyzer:
    """The analyzer in ``--load-fit``, or a new one; with ``classes`` None, for all classes."""
    mode = "max_activation" if args.neuron is None else "index"
    if args.load_fit is None:
        method = args.method or "mipin"
        own = {"neuron_selection_mode": mode, "verbose": args.verbose}
        own = {key: value for key, value in own.items() if key in options_of(method)}
        chosen = {} if classes is None else {"classes": classes}
        return create_analyzer(method, model, **(own | chosen | options))
    fit_only = {"--classes": args.classes, "--save-fit": args.save_fit, "--fit-key": args.fit_key}
    for flag, value in (fit_only | {"--checkpoint": args.checkpoint}).items():
        if value is not None:
            raise ValueError(
                f"expected no {flag} beside --load-fit, as it is for a new fit, received {flag} {value}; leave it "
                "out, or give --fit"
            )
    with open_file(args.load_fit) as file:
        own = {"neuron_selection_mode": mode} if "neuron_selection_mode" in options_of(file.header["name"]) else {}
    analyzer = load_analyzer(args.load_fit, model, **(own | options))
    if args.method not in (None, analyzer.name):
        raise ValueError(
            f"--load-fit: expected a fit of {args.method!r}, as --method says, received {args.load_fit}, a fit of "
            f"{analyzer.name!r}; leave out --method"
        )
    return analyzer


def _fit_options(args: argparse.Namespace, analyzer: Analyzer) -> dict[str, Any]:
    """The options of the fit that the user has given."""
    given = {"batch_size": _fit_batch(args), "memory": args.memory, "checkpoint": args.checkpoint}
    taken = inspect.signature(analyzer.fit).parameters
    return {name: value for name, value in given.items() if value is not None and name in taken}


def _fit_batch(args: argparse.Namespace) -> int:
    return 128 if args.batch_size is None else args.batch_size


def _fitted(args: argparse.Namespace, options: dict[str, Any], analyzer: Analyzer, explained: list[int]) -> Analyzer:
    """The analyzer fitted to the file ``--fit``; unless told otherwise, for the explained neurons only."""
    data, label = read_array(args.fit, args.fit_key, "--fit", FIT_KEYS)
    with _errors_naming(f"--fit {label}"):
        analyzer.batches(data, None, _fit_batch(args))
    if args.classes is None and "classes" in options_of(analyzer.name):
        analyzer = _analyzer(args, options, analyzer.model, explained)
    missing = sorted(set(explained) - set(getattr(analyzer, "classes", explained)))
    if missing:
        raise ValueError(
            f"expected --classes with the output neurons {missing} too, which the samples to explain need, received "
            f"{args.classes}; name them there, or explain one of --classes with --neuron"
        )
    if args.verbose:
        print(f"mipin: fitting {analyzer.name!r} to {len(data)} samples of {label}", flush=True)
    analyzer.fit(data, **_fit_options(args, analyzer))
    if args.save_fit is not None:
        print(f"mipin: saved the fit as {analyzer.save(args.save_fit)}", flush=True)
    return analyzer


@contextlib.contextmanager
def _errors_naming(what: str) -> Iterator[None]:
    """A context in which the message of an error about the content of a file begins with the name of the file."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        raise ValueError(f"{what}: {problem}") from problem


def _completeness(found: dict[str, np.ndarray]) -> str:
    if "source_signal" not in found:
        return "none, as this method has no source signals"
    if "source_logits" not in found:
        return "none, as the source signal of an --input-layer is no input of the model"
    rows, neurons = np.arange(len(found["neuron"])), found["neuron"]
    return str(
        average_percentage_change(found["logits"][rows, neurons], found["source_logits"][rows, neurons], neurons)
    )


# Pictures


def _draw_all(args: argparse.Namespace, x: np.ndarray, found: dict[str, np.ndarray]) -> str:
    """Draw the first samples; return a line about it for the user."""
    count = min(len(x), args.max_pictures)
    for index in range(count):
        one = {name: array[index] for name, array in found.items()}
        figure = draw(np.asarray(x[index]), one, args.cmap, args.bands)
        if figure is None:
            return f"drew no pictures: samples of shape {x.shape[1:]} are neither images nor features in a row"
        plot.save(figure, args.out / f"{index:05d}.png")
    if not count:
        return "drew no pictures, as --max-pictures says"
    rest = f", the first of {len(x)} samples; --max-pictures draws more" if count < len(x) else ""
    return f"drew {count} pictures: {args.out / '00000.png'} and on{rest}"


def draw(
    x: np.ndarray, found: dict[str, np.ndarray], cmap: str = "seismic", bands: tuple[int, ...] | None = None
) -> Figure | None:
    """Draw one sample.

    Args:
        x: The input, without a batch axis.
        found: The arrays that :func:`explain` writes, of this sample.
        cmap: A name in :data:`mipin_keras.plot.COLORMAPS`.
        bands: The channels of an image to draw as red, green and blue, or the
            one to draw in grey; None for an image of 1 or 3 channels.

    Returns:
        For an image, a figure of the input, the attribution, both together
        and the source signal; for features in a row, a figure of bars; None
        for other inputs.
    """
    neuron = int(found["neuron"])
    titles = {
        "input": f"input: logit {found['logits'][neuron]:.2f}",
        "attribution": f"attribution of neuron {neuron}",
        "source": "source signal",
    }
    if "source_logits" in found:
        titles["source"] += f": logit {found['source_logits'][neuron]:.2f}"
    if not plot.COLORMAPS[cmap].signed:
        titles["attribution"] = f"|{titles['attribution']}|"
    if x.ndim == found["attribution"].ndim == 1:
        return _draw_features(x, found, cmap, titles)
    if found["attribution"].ndim in (2, 3):
        return _draw_image(x, found, cmap, titles, bands)
    return None


def _draw_image(
    x: np.ndarray,
    found: dict[str, np.ndarray],
    cmap: str,
    titles: dict[str, str],
    bands: tuple[int, ...] | None,
) -> Figure:
    from matplotlib.figure import Figure

    attribution, signal = found["attribution"], found.get("source_signal")
    attribution = attribution.sum(axis=-1) if attribution.ndim == 3 else attribution
    attribution = attribution if plot.COLORMAPS[cmap].signed else np.abs(attribution)
    signal = signal if signal is not None and signal.shape == x.shape else None
    if bands is not None:
        x, signal = chosen(x, bands), None if signal is None else chosen(signal, bands)
    is_image = x.ndim == 2 or (x.ndim == 3 and x.shape[-1] in (1, 3))
    count = 1 + 2 * is_image + (is_image and signal is not None)
    figure = Figure(figsize=(2.4 * count, 2.8), layout="constrained")
    axes = iter(figure.subplots(1, count, squeeze=False)[0])
    if not is_image:
        plot.heatmap(attribution, next(axes), cmap, title=titles["attribution"])
        return figure
    limits = _limits(x)
    plot.image(x, next(axes), limits, titles["input"])
    plot.heatmap(attribution, next(axes), cmap, title=titles["attribution"])
    grey = np.clip((x.astype(np.float64) - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0)
    large = resized(attribution[None], x.shape[:2])[0]  # a feature map is smaller than its image
    plot.overlay(grey, large, next(axes), cmap, title="overlay")
    if signal is not None:
        plot.image(signal, next(axes), limits, titles["source"])
    return figure


def _limits(x: np.ndarray) -> tuple[float, float]:
    """The values drawn as black and white, alike for the input and the source signal."""
    low, high = float(x.min()), float(x.max())
    if 0 <= low and high <= 1:
        return 0.0, 1.0
    return (low, high) if low < high else (low, low + 1.0)


def _draw_features(x: np.ndarray, found: dict[str, np.ndarray], cmap: str, titles: dict[str, str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1)
    above.step(np.arange(len(x)), x, where="mid", color="0.6", label=titles["input"])
    if found.get("source_signal", x[:0]).shape == x.shape:
        above.step(np.arange(len(x)), found["source_signal"], where="mid", color="black", label=titles["source"])
    above.legend(fontsize=8)
    attribution, colors = found["attribution"], colormap(cmap)
    signed = plot.COLORMAPS[cmap].signed
    attribution = attribution if signed else np.abs(attribution)
    strong = [0.8 if value > 0 or not signed else 0.2 for value in attribution]
    below.bar(np.arange(len(attribution)), attribution, color=colors(strong))
    below.axhline(0.0, color="0.5", linewidth=0.5)
    below.set_title(titles["attribution"], fontsize=9)
    below.set_xlabel("feature", fontsize=8)
    return figure
