"""Table 1: APC and positive APC of MIP-IN's source signals, for the models of Tables 3, 4 and 5."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import mipin_keras
from mipin_keras.metrics import average_percentage_change

from . import arguments, data, models, report

# Table 1 of the paper, in percent. It does not say on which images.
PAPER = {"MLP-M": (10.1, 2.6), "CNN-M": (16.5, 2.3), "CNN-C": (21.1, 10.6)}
RESUMES = True  # knows --resume
HAS_CONVOLUTIONS = {"CNN-M", "CNN-C"}


class Scale(NamedTuple):
    """How many epochs and images a run takes; None means all."""

    epochs: int | None = None  # of the models' training; None: each recipe's
    train_samples: int | None = None
    fit_samples: int = 50000  # section 6.1.2
    trained_samples: int = 5000  # for the rows of "mipin.trained", which take minutes for each thousand
    trained_epochs: int = 20
    finetuned_samples: int = 5000  # for the rows with fine-tuning, which take minutes too
    finetune_epochs: int = 5
    measured: int = 10000  # training and test images that APC is measured on
    rows: int | None = None  # of each convolution's regression; None: the analyzer's own


QUICK = Scale(**models.QUICK, fit_samples=1000, trained_samples=500, trained_epochs=1, finetuned_samples=500,
              finetune_epochs=1, measured=300, rows=1 << 13)  # fmt: skip


def variants(name: str, scale: Scale) -> list[tuple[str, dict[str, Any], int]]:
    """What is fitted for one model, a row each: the analyzer, its options, and the number of samples."""
    own = {} if scale.rows is None else {"rows": scale.rows}
    rows: list[tuple[str, dict[str, Any], int]] = [
        ("mipin", {"samples": "all"} | own, scale.fit_samples),
        ("mipin", {"samples": "class"} | own, scale.fit_samples),
    ]
    if name in HAS_CONVOLUTIONS:
        rows.append(("mipin.trained", {"samples": "class", "epochs": scale.trained_epochs}, scale.trained_samples))
    # The layers' own fit on these images too: what fewer images do is not what fine-tuning does.
    for epochs in (0, scale.finetune_epochs) if scale.finetune_epochs else ():
        for samples in ("all", "class"):
            rows.append(("mipin", {"samples": samples, "finetune_epochs": epochs} | own, scale.finetuned_samples))
    return rows


def of_the_paper(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a model that stand beside the paper's: fitted layer by layer, in closed form, on all images."""
    return [row for row in found["rows"] if row["analyzer"] == "mipin" and "finetune_epochs" not in row["options"]]


def called(row: dict[str, Any]) -> str:
    """The analyzer of a row, with its fine-tuning."""
    epochs = row["options"].get("finetune_epochs", 0)
    return f"{row['analyzer']}, fine-tuned" if epochs else row["analyzer"]


def measure(analyzer: mipin_keras.Analyzer, x: np.ndarray) -> dict[str, Any]:
    """Completeness on ``x`` for the class the model takes each sample for, without and with the mask on the pixels.

    The mask acts behind everything that is fitted, so one fit serves both.
    """
    logits = analyzer.logits(x)
    classes = logits.argmax(axis=1)
    rows = np.arange(len(x))
    signals = analyzer.source_signal(x)
    found = {}
    for mask in (False, True):
        shown = signals * (x != 0) if mask else signals
        result = average_percentage_change(logits[rows, classes], analyzer.logits(shown)[rows, classes], classes)
        numbers = dataclasses.asdict(result)
        del numbers["per_class"]
        found["masked" if mask else "unmasked"] = numbers
    return found


def run_model(
    name: str, args: argparse.Namespace, scale: Scale, kept: list[dict[str, Any]], keep: Callable[[list], None]
) -> dict[str, Any]:
    """Train or load one model, fit every variant, measure.

    Args:
        name: The model.
        args: The command's arguments.
        scale: How much of everything.
        kept: Rows of an interrupted run, which are not made again.
        keep: Is given all rows of the model after each one.
    """
    images = data.load(models.RECIPES[name].data, args.data_dir)
    model, about = models.trained(
        name, images, args.cache_dir, seed=args.seed, epochs=scale.epochs, train_samples=scale.train_samples
    )
    print(f"{name}: accuracy {about['accuracy']:.4f} on {len(images.x_test)} test images", flush=True)
    train = models.shape_for(model, images.x_train)
    test = models.shape_for(model, images.x_test)
    rows = list(kept)
    for method, options, count in variants(name, scale)[len(kept) :]:
        print(f"{name}: {method} {options} on {min(count, len(train))} images", flush=True)
        analyzer = mipin_keras.create_analyzer(method, model, seed=args.seed, verbose=args.verbose, **options)
        start = time.perf_counter()
        analyzer.fit(train[:count], batch_size=256)
        seconds = time.perf_counter() - start
        row = {
            "analyzer": method,
            "options": options,
            "fit_samples": min(count, len(train)),
            "fit_seconds": round(seconds, 1),
            "train": measure(analyzer, train[: scale.measured]),
            "test": measure(analyzer, test[: scale.measured]),
        }
        rows.append(row)
        test_apc = row["test"]["unmasked"]
        print(
            f"{name}: {method} {options}: test APC {test_apc['apc']:.1f} %, positive {test_apc['positive_apc']:.1f} %, "
            f"fitted in {seconds:.0f} s",
            flush=True,
        )
        keep(rows)
        del analyzer
    keras.backend.clear_session()
    paper = {"apc": PAPER[name][0], "positive_apc": PAPER[name][1]}
    return {"trained": about, "paper": paper, "rows": rows}


def markdown(result: dict[str, Any]) -> str:
    """The table, with the paper's numbers and what made it."""
    header = ["model", "analyzer", "samples", "pixels masked", "fit images"]
    header += ["train APC", "train pos.", "test APC", "test pos."]
    lines = []
    for name, found in result["models"].items():
        paper = found["paper"]
        lines.append(
            [f"**{name}**", "paper", "", "", "50,000", "", "", f"{paper['apc']} %", f"{paper['positive_apc']} %"]
        )
        for row in found["rows"]:
            for mask in ("unmasked", "masked"):
                numbers = [row[part][mask][key] for part in ("train", "test") for key in ("apc", "positive_apc")]
                lines.append(
                    ["", called(row), row["options"]["samples"], "yes" if mask == "masked" else "no"]
                    + [f"{row['fit_samples']:,}"]
                    + ["undefined" if value is None else f"{value:.1f} %" for value in numbers]
                )
    first = next(iter(result["models"].values()))["rows"][0]
    epochs, tuned = result["scale"].get("finetune_epochs", 0), ""
    if epochs:
        tuned = f"""Those that are "fine-tuned" train all inverses of a class together for {epochs} epochs of
Adam (`finetune_epochs`), the paper's overall objective, on fewer images too; beside them stand the same fits without.
"""
    return f"""# Table 1: completeness of the source signals

{report.table(header, lines)}

The better of samples "all" and "class", on test images:

{chr(10).join(verdict(name, found) for name, found in result["models"].items())}

APC is Eq. 10 and "pos." Eq. 11, in percent, for the class that the model takes each image for, over the first
{first["train"]["unmasked"]["samples"]:,} training and {first["test"]["unmasked"]["samples"]:,} test images;
{undefined(result)} were left out because their logit is 0. The paper says neither on which images it measured nor what
it did at the pixels: "forward relu stops at the second layer" (section 6.1.2) reads as no mask there, which is this
package's default; "pixels masked" is `mask_input=True`. The rows of "mipin.trained" fit their convolutions with
{result["scale"]["trained_epochs"]} epochs of Adam, on fewer images for the time it takes; an MLP has none to train.
{tuned}The paper gives neither the models' accuracy nor how long they were trained, and APC depends on that: see
`--epochs`.
"""


def verdict(name: str, found: dict[str, Any]) -> str:
    """One line: our best test APC beside the paper's, without and with the mask on the pixels."""
    aim, about = found["paper"]["apc"], found["trained"]
    words = []
    for mask, kind in (("unmasked", "pixels not masked"), ("masked", "pixels masked")):
        value = min(row["test"][mask]["apc"] for row in of_the_paper(found))
        beside = "not above" if value <= aim else f"{value - aim:.1f} points above"
        words.append(f"{value:.1f} % ({kind}), {beside} the paper's {aim} %")
    trained = f"accuracy {100 * about['accuracy']:.1f} %, {about['epochs']} epochs on {about['train_samples']:,} images"
    return f"- {name} ({trained}): {'; '.join(words)}."


def in_short(result: dict[str, Any]) -> list[str]:
    """For the top of REPRODUCTION.md."""
    return [verdict(name, found).removeprefix("- ") for name, found in result["models"].items()]


def beside(result: dict[str, Any]) -> list[report.Beside]:
    """The paper's six numbers beside ours on test images, pixels not masked, both choices of samples."""
    found = []
    for name, of_model in result["models"].items():
        rows = of_the_paper(of_model)
        about = of_model["trained"]
        setting = f"{about['train_samples']:,} images, accuracy {100 * about['accuracy']:.1f} %"
        for key, what in (("apc", "APC"), ("positive_apc", "positive APC")):
            ours = ", ".join(
                f'{row["test"]["unmasked"][key]:.1f} % (samples "{row["options"]["samples"]}")' for row in rows
            )
            paper = f"{of_model['paper'][key]} %"
            found.append(report.Beside("Table 1", f"{what}, {name}", paper, ours, setting))
    return found


def undefined(result: dict[str, Any]) -> int:
    """How many samples of all measurements have a logit of 0."""
    return sum(
        row[part][mask]["undefined"]
        for found in result["models"].values()
        for row in found["rows"]
        for part in ("train", "test")
        for mask in ("unmasked", "masked")
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this experiment."""
    arguments.add_models(parser, PAPER)
    parser.add_argument("--epochs", type=int, help="epochs of the models' training, instead of each one's own")
    parser.add_argument("--finetune-epochs", type=int, help="of the fine-tuned rows; 0 leaves them out")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the rows that an interrupted run of the same options left"
    )


def run(args: argparse.Namespace) -> pathlib.Path:
    """Run the experiment; write ``table1.json`` and ``table1.md`` (``table1-quick.*`` with ``--quick``)."""
    scale = QUICK if args.quick else Scale()
    if args.epochs is not None:
        scale = scale._replace(epochs=args.epochs)
    if args.finetune_epochs is not None:
        scale = scale._replace(finetune_epochs=args.finetune_epochs)
    experiment = report.Experiment("table1", args)
    unfinished = Unfinished(experiment, scale, args.resume)
    experiment.result |= {"scale": scale._asdict(), "models": {}}
    for name in args.models:
        experiment.result["models"][name] = run_model(name, args, scale, unfinished.rows(name), unfinished.keeper(name))
    path = experiment.write(markdown(experiment.result))
    unfinished.done()
    return path


class Unfinished:
    """The rows made so far, in ``NAME.unfinished.json`` beside the result: a run in full takes hours.

    Args:
        experiment: Whose file it is.
        scale: Rows of another scale, seed or set of versions are not gone on with.
        resume: Whether to read what an interrupted run left.

    Raises:
        ValueError: What is left is of a run with other settings or versions.
    """

    def __init__(self, experiment: report.Experiment, scale: Scale, resume: bool):
        self.path = experiment.out / f"{experiment.name}.unfinished.json"
        settings = {key: experiment.result[key] for key in ("quick", "seed", "environment")}
        self._content: dict[str, Any] = {"settings": settings | {"scale": scale._asdict()}, "models": {}}
        if resume and self.path.exists():
            left = json.loads(self.path.read_text())
            if left["settings"] != self._content["settings"]:
                raise ValueError(
                    f"expected {self.path} to be of a run with {self._content['settings']}, received one with "
                    f"{left['settings']}; give the options of that run, or leave out --resume to begin anew"
                )
            self._content = left
            count = sum(map(len, left["models"].values()))
            experiment.log(f"{count} rows were made before")
            experiment.result["note"] = f"{count} of its rows are of a run before, which was interrupted."

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a model that an interrupted run made."""
        return self._content["models"].get(name, [])

    def keeper(self, name: str) -> Callable[[list], None]:
        """What keeps the rows of a model: the whole file is written anew."""

        def keep(rows: list[dict[str, Any]]) -> None:
            self._content["models"][name] = rows
            report.write_json(self.path, self._content)

        return keep

    def done(self) -> None:
        """Remove the file: the result is written."""
        self.path.unlink(missing_ok=True)
