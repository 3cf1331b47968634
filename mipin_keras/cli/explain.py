"""What ``mipin explain`` does: files in, an analyzer between, attributions and pictures out."""

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
from ..metrics import average_percentage_change
from ..plotting import plot
from ..plotting.colormaps import colormap
from ..registry import create_analyzer, load_analyzer, options_of
from .files import load_model, read_array, write_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Which array to take from a file with several, in order.
FIT_KEYS = ("x", "X", "x_train", "X_train")
EXPLAIN_KEYS = ("x", "X", "x_test", "X_test")


def explain(args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Explain a saved model on a file of inputs; write and print what comes out.

    All that can be checked is checked before the fit, which is what takes
    long. ``attributions.npz`` gets ``attribution``, ``logits`` (n, units),
    ``neuron`` (n,), the explained one, and ``about``, a JSON text; where the
    method has them ``source_signal`` and ``source_logits`` (n, units).

    Args:
        args: The command line of ``mipin explain``.
        options: Those of the analyzer that the user has given.

    Raises:
        OSError, TypeError, ValueError, NotFittedError: If a file, an option
            or the data do not allow it; the message says which and what to
            do.
    """
    sources = "--fit FIT.npz (inputs to fit from) and --load-fit FILE (a fit saved before)"
    if args.fit is not None and args.load_fit is not None:
        raise ValueError(f"expected one of {sources}, received both")
    model = load_model(args.model, trust=args.trust_model)
    sizes: dict[str, Any] = {"batch_size": args.batch_size}
    sizes |= {} if args.memory is None else {"memory": args.memory}
    x, label = read_array(args.explain, args.explain_key, "--explain", EXPLAIN_KEYS)
    analyzer = _analyzer(args, options, model, None if args.classes == "all" else args.classes)
    if not analyzer.fitted and args.fit is None:
        raise ValueError(f"{analyzer.name!r} needs a fit: expected one of {sources}")
    for flag, value in (("--fit", args.fit), ("--save-fit", args.save_fit), ("--fit-key", args.fit_key)):
        if analyzer.fitted and args.load_fit is None and value is not None:
            raise ValueError(f"{analyzer.name!r} needs no fit: leave out {flag}")
    if args.checkpoint is not None and "checkpoint" not in inspect.signature(analyzer.fit).parameters:
        raise ValueError(f"the fit of {analyzer.name!r} has no checkpoint: leave out --checkpoint")
    if args.reduce is not None:
        analyzer._check_reducible()
    with _about(f"--explain {label}"):
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
    """The analyzer in ``--load-fit``, or a new one; ``classes`` None: all that there are."""
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
            raise ValueError(f"{flag} is for a new fit: leave it out beside --load-fit, or give --fit")
    analyzer = load_analyzer(args.load_fit, model, neuron_selection_mode=mode, **options)
    if args.method not in (None, analyzer.name):
        raise ValueError(f"{args.load_fit} is a fit of {analyzer.name!r}, not of --method {args.method}")
    return analyzer


def _fit_options(args: argparse.Namespace, analyzer: Analyzer) -> dict[str, Any]:
    """Those of the fit that the user has given."""
    given = {"batch_size": _fit_batch(args), "memory": args.memory, "checkpoint": args.checkpoint}
    taken = inspect.signature(analyzer.fit).parameters
    return {name: value for name, value in given.items() if value is not None and name in taken}


def _fit_batch(args: argparse.Namespace) -> int:
    return 128 if args.batch_size is None else args.batch_size


def _fitted(args: argparse.Namespace, options: dict[str, Any], analyzer: Analyzer, explained: list[int]) -> Analyzer:
    """The analyzer fitted to the file ``--fit``; unless told otherwise, for the explained neurons only."""
    data, label = read_array(args.fit, args.fit_key, "--fit", FIT_KEYS)
    with _about(f"--fit {label}"):
        analyzer.batches(data, None, _fit_batch(args))
    if args.classes is None and "classes" in options_of(analyzer.name):
        analyzer = _analyzer(args, options, analyzer.model, explained)
    missing = sorted(set(explained) - set(getattr(analyzer, "classes", explained)))
    if missing:
        raise ValueError(
            f"the samples to explain need output neurons {missing}, which --classes leaves out; name them there too, "
            "or explain one of --classes with --neuron"
        )
    if args.verbose:
        print(f"mipin: fitting {analyzer.name!r} to {len(data)} samples of {label}", flush=True)
    analyzer.fit(data, **_fit_options(args, analyzer))
    if args.save_fit is not None:
        print(f"mipin: saved the fit as {analyzer.save(args.save_fit)}", flush=True)
    return analyzer


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """An error in what a file holds names the file."""
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
    """Draw the first samples; return what to say about it."""
    count = min(len(x), args.max_pictures)
    for index in range(count):
        figure = draw(np.asarray(x[index]), {name: array[index] for name, array in found.items()}, args.cmap)
        if figure is None:
            return f"drew no pictures: samples of shape {x.shape[1:]} are neither images nor features in a row"
        plot.save(figure, args.out / f"{index:05d}.png")
    if not count:
        return "drew no pictures, as --max-pictures says"
    rest = f", the first of {len(x)} samples; --max-pictures draws more" if count < len(x) else ""
    return f"drew {count} pictures: {args.out / '00000.png'} and on{rest}"


def draw(x: np.ndarray, found: dict[str, np.ndarray], cmap: str = "seismic") -> Figure | None:
    """A picture of one sample.

    Args:
        x: The input.
        found: Of this sample, what :func:`explain` writes.
        cmap: A name in :data:`mipin_keras.plot.COLORMAPS`.

    Returns:
        Input, attribution, both together and source signal for an image; bars
        for features in a row; None for what is neither.
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
        return _draw_image(x, found, cmap, titles)
    return None


def _draw_image(x: np.ndarray, found: dict[str, np.ndarray], cmap: str, titles: dict[str, str]) -> Figure:
    from matplotlib.figure import Figure

    attribution, signal = found["attribution"], found.get("source_signal")
    attribution = attribution.sum(axis=-1) if attribution.ndim == 3 else attribution
    attribution = attribution if plot.COLORMAPS[cmap].signed else np.abs(attribution)
    is_image = x.ndim == 2 or (x.ndim == 3 and x.shape[-1] in (1, 3))
    has_source = is_image and signal is not None and signal.shape == x.shape
    count = 1 + 2 * is_image + has_source
    figure = Figure(figsize=(2.4 * count, 2.8), layout="constrained")
    axes = iter(figure.subplots(1, count, squeeze=False)[0])
    if not is_image:
        plot.heatmap(attribution, next(axes), cmap, title=titles["attribution"])
        return figure
    limits = _limits(x)
    plot.image(x, next(axes), limits, titles["input"])
    plot.heatmap(attribution, next(axes), cmap, title=titles["attribution"])
    grey = np.clip((x.astype(np.float64) - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0)
    if attribution.shape != x.shape[:2]:  # a feature map's
        large = keras.ops.image.resize(attribution[..., None], x.shape[:2], data_format="channels_last")
        attribution = keras.ops.convert_to_numpy(large)
    plot.overlay(grey, attribution, next(axes), cmap, title="overlay")
    if has_source:
        plot.image(found["source_signal"], next(axes), limits, titles["source"])
    return figure


def _limits(x: np.ndarray) -> tuple[float, float]:
    """What is black and white in the input, and then in the source signal too."""
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
