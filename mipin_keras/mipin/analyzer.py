"""MIPIN: the analyzer of the Mutual Information Preserving Inverse Network (Deng et al. 2021)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Self

import keras

from .._version import __version__
from ..checks import integer, number, one_of
from ..data.distribute import Replicas
from ..saving.archive import MAGIC, model_differences
from ..saving.identity import ModelIdentity
from .arguments import checked_callbacks, checked_classes
from .explanation import Explanation
from .fitting.checkpoint import FORMAT, Checkpoint
from .fitting.finetune import check_alone, finetune
from .fitting.loop import Fitting, Options
from .fitting.measuring import measure
from .inverse_model import network_of
from .network import InverseNetwork

SAMPLES = ("all", "class")
CONV_SOLVERS = ("closed_form", "trained")
MERGES = ("channel", "full")


class MIPIN(Explanation):
    """MIP-IN (Algorithm 1): what a logit still knows of the input, and the linear weights that reconstruct it.

    For each class an inverse of the network is fitted, layer by layer from
    the logit down to the input. Its reconstruction is the *source signal*,
    the product of its linear parts the *attribution*.

    Args:
        model: See :class:`mipin_keras.analyzer.Analyzer`.
        neuron_selection_mode, output_layer, output, target: Likewise. "all" gives the sum of
            all classes' attributions and the mean of their source signals.
        input_layer: Name of the layer whose output the explanation goes down
            to, instead of the pixels.
        classes: Output neurons to fit: ints, or None for all.
        samples: What fits a class: ``"all"`` samples (class-discriminative),
            or those that the model takes for the ``"class"`` alone: the
            largest logit's, behind a sigmoid each whose logit is above 0, and
            with a target the samples whose target is.
        ridge: λ of Eq. 6, added to the unnormalised centred Gram.
        forward_relu: False gives the global explanation of section 4.2, without masks.
        mask_input: Whether the mask [X ≠ 0] acts where the explanation ends
            too. None: at an ``input_layer`` and not at the pixels, as in the
            paper; never without ``forward_relu``.
        conv_solver: ``"closed_form"``, or ``"trained"`` with ``epochs`` of Adam.
        merge: How a tensor that several layers read is put together from what
            each one's inverse makes of it: ``"channel"`` weighs them channel
            by channel, ``"full"`` takes all channels of each for every
            channel, which knows more and takes more time and memory.
        epochs: For ``conv_solver="trained"``; 20 as in the paper.
        finetune_epochs: After the fit of the layers, train all inverses of a
            class together for so many epochs of Adam: the paper's overall
            objective min ||X - g_1(g_2(... g_L(Y)))||², which Algorithm 1
            solves layer by layer.
        rows: About how many rows the closed form of a convolution or a merge
            takes of all samples' positions, at random; None for every one.
        seed: For the rows and for training.
        verbose: 0 silent, 1 a bar a pass and a line a layer, 2 a line a layer
            and class.

    Raises:
        ValueError: For a value that an option does not take, and for a model
            with layers that have no inverse, naming each.

    Attributes:
        fit_report: After a fit, one dict a layer and class, from the top
            down: ``class``, ``layer``, ``type``, ``samples`` and ``rows`` it
            was fitted from, ``mse`` (mean squared error of the
            reconstruction, in squared units of the layer's input, over those
            rows), ``variance`` of that input, and ``relative``, their ratio.
            With ``finetune_epochs`` they are measured anew behind it, every
            position counted, and ``mse_before`` and ``relative_before``
            likewise in front of it; ``end_mse_before`` and ``end_mse``, the
            same in all entries of a class, are the mean squared error where
            the explanation ends, which is what the fine-tuning lowers.
    """

    name = "mipin"

    def __init__(
        self,
        model: keras.Model,
        *,
        neuron_selection_mode: str | Callable = "max_activation",
        output_layer: str | None = None,
        input_layer: str | None = None,
        output: str | int | None = None,
        target: Any = None,
        classes: Iterable[int] | int | None = None,
        samples: str = "all",
        ridge: float = 1e-3,
        forward_relu: bool = True,
        mask_input: bool | None = None,
        conv_solver: str = "closed_form",
        merge: str = "channel",
        epochs: int = 20,
        finetune_epochs: int = 0,
        rows: int | None = 1 << 17,
        seed: int = 0,
        verbose: int = 1,
    ):
        super().__init__(
            model, neuron_selection_mode=neuron_selection_mode, output_layer=output_layer, output=output, target=target
        )
        if target is not None and classes is not None:
            raise ValueError(
                f"expected one of target and classes, received {target!r} and {classes!r}; a target is one quantity, "
                "for which classes is left out"
            )
        samples = one_of("samples", samples, SAMPLES)
        conv_solver = one_of("conv_solver", conv_solver, CONV_SOLVERS)
        merge = one_of("merge", merge, MERGES)
        forward_relu = one_of("forward_relu", forward_relu, (True, False))
        mask_input = one_of("mask_input", mask_input, (True, False, None))
        verbose = one_of("verbose", verbose, (0, 1, 2))
        epochs, seed = integer("epochs", epochs, 1), integer("seed", seed, 0)
        finetune_epochs = integer("finetune_epochs", finetune_epochs, 0)
        if rows is not None:
            rows = integer("rows", rows, 1)
        ridge = number("ridge", ridge, 0)
        if mask_input and not forward_relu:
            raise ValueError(
                "expected mask_input=True with forward_relu=True, received it with forward_relu=False; without it "
                "nothing is masked"
            )
        self.classes = checked_classes(classes, self.graph.neurons)
        self.verbose = verbose
        self.fit_report: list[dict[str, Any]] = []
        self._fit_options = Options(samples, ridge, conv_solver, epochs, rows, seed)
        self.options |= {
            "input_layer": input_layer,
            "classes": None if classes is None else self.classes,
            "forward_relu": forward_relu,
            "mask_input": mask_input,
            "merge": merge,
            "finetune_epochs": finetune_epochs,
            "verbose": verbose,
            **self._fit_options._asdict(),
        }
        self.network = self._new_network()
        self._say_where_it_ends()

    def _new_network(self) -> InverseNetwork:
        """The inverse of the model as it is now: some of its inverses are made of the model's weights."""
        return network_of(self.graph, self.options)

    # Fitting

    def fit(
        self,
        X: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        steps: int | None = None,
        classes: Iterable[int] | int | None = None,
        memory: float = 2.0,
        checkpoint: str | os.PathLike[str] | None = None,
        callbacks: Iterable[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        verbose: int | None = None,
    ) -> Self:
        """Learn the inverse of every class in ``classes``, from the top down (Algorithm 1).

        Passes over the data once for as many layers as ``memory`` allows;
        what it takes depends on the model, the batch and ``memory``, not on
        the number of samples. Interrupted, it leaves the analyzer as it was.

        In the scope of a ``tf.distribute.MirroredStrategy`` or
        ``MultiWorkerMirroredStrategy`` each replica walks its share of the
        samples, and the sums are all-reduced; every process gives the same
        model, data and options.

        Args:
            X: An array ``(n, *input shape)`` or memmap, a batched
                ``tf.data.Dataset``, a ``keras.utils.PyDataset``, a function
                that returns an iterator of batches, or an endless generator
                with ``steps``.
            y: Labels, not used. An int here is the ``batch_size``, as in iNNvestigate.
            batch_size: Samples a batch, where ``X`` is an array.
            steps: Batches a pass.
            classes: Fit these, and keep the others that are fitted; None for
                those of the analyzer, anew.
            memory: GiB. So many classes are fitted together as their sums
                fit in there (one always does), and so many layers in one pass
                over the data as what the network makes of them fits in as
                much again; signals that wait and do not fit go to temporary
                files. Changes the time, and the numbers by rounding only.
            checkpoint: A folder: what is learned is written there layer by
                layer, and a fit of the same model, data and options goes on
                from what stands there, with the same numbers. Fine-tuning is
                not written there; it is done again, with the same numbers.
            callbacks: Keras', for the trainings of
                ``conv_solver="trained"``, each layer and class a training of
                its own from ``on_train_begin`` to ``on_train_end``, and of
                ``finetune_epochs``, each class one. The loss is the mean
                squared error; there is no validation data.
            verbose: Instead of the analyzer's.

        Raises:
            TypeError, ValueError: See :class:`mipin_keras.data.batches.Batches` and
                :class:`mipin_keras.mipin.fitting.checkpoint.Checkpoint`; ValueError
                also for a class without samples, for a model whose output is
                not finite, and for ``callbacks`` where nothing is trained.
            NotFittedError: If the model's weights have changed since the fit
                that ``classes`` would add to, or while it is fitted.
            RuntimeError: If another host of the strategy is lost.
        """
        verbose = self.verbose if verbose is None else verbose
        verbose = one_of("verbose", verbose, (0, 1, 2))
        budget = int(min(number("memory", memory, 0) * (1 << 30), 1 << 60))
        fitted = self.classes if classes is None else checked_classes(classes, self.graph.neurons)
        batches = self.batches(X, y, batch_size, steps)
        self._refresh()
        listed = checked_callbacks(callbacks, self.network, self.options)
        network, identity = self.network, ModelIdentity(self.graph)
        if classes is not None and self.identity is not None:
            self.identity.check_structure()
        elif self.identity is None or self.identity.fingerprint != identity.fingerprint:
            network = self._new_network()
        replicas = Replicas()
        if self.options["finetune_epochs"]:
            check_alone(replicas)
        if checkpoint is not None and batches.source_type == "generator":
            raise ValueError(
                "checkpoint= expected data that starts again, received a generator, which goes on where it stands; "
                "give an array, a data set, or a function that returns a fresh generator"
            )
        if verbose and self.graph.stripped and replicas.chief:
            print(f"mipin: explaining the logits before {self.graph.stripped!r}", flush=True)
        with replicas.together():
            folder = None
            if checkpoint is not None or replicas.hosts > 1:
                header = self._header(fitted, budget, batches, identity)
                if listed:  # they may stop a training
                    header["callbacks"] = [type(callback).__name__ for callback in listed]
                for key, value in header.items():
                    replicas.agree(key, json.dumps(value, sort_keys=True))
                if checkpoint is not None:
                    folder = Checkpoint(
                        checkpoint, header | {"probe": identity.probe}, writes=replicas.chief,
                        model=lambda found: model_differences(found, self.graph, identity),
                    )  # fmt: skip
            with contextlib.nullcontext() if folder is None else folder:
                fitting = Fitting(
                    network, batches, fitted, self._fit_options, verbose,
                    memory=budget, checkpoint=folder, replicas=replicas, callbacks=listed,
                )  # fmt: skip
                weights, report = fitting.run(), fitting.results.report
            if self.options["finetune_epochs"]:
                weights, report = finetune(
                    network, weights, batches, fitting.members, samples=self.options["samples"],
                    epochs=self.options["finetune_epochs"], verbose=verbose, log=fitting.log, callbacks=listed,
                )  # fmt: skip
        identity.check_after_fit()
        if classes is None or self.identity is None:
            self.network, self.identity = network, identity
            self.network.weights, self.fit_report = weights, report
        else:
            order = {node.name: position for position, node in enumerate(self.network.learned)}
            lines = [line for line in self.fit_report if line["class"] not in weights] + report
            self.fit_report = sorted(lines, key=lambda line: (order[line["layer"]], line["class"]))
            self.network.weights = self.network.weights | weights
        return self

    def _header(self, classes: list[int], memory: int, batches: Any, identity: ModelIdentity) -> dict[str, Any]:
        """What the numbers of a fit depend on."""
        loose = (*self._loose, "classes")
        return {
            "magic": f"{MAGIC} checkpoint",
            "format": FORMAT,
            "version": __version__,
            "name": self.name,
            # Without fine-tuning as before there was any, so that a checkpoint of then is taken up.
            "options": {
                key: value
                for key, value in self.options.items()
                if key not in loose and (key, value) != ("finetune_epochs", 0)
            },
            "classes": classes,
            "memory": memory,
            "data": batches.about(),
            "fingerprint": identity.fingerprint,
        }

    def reconstruction_errors(
        self, X: Any, y: Any = None, batch_size: int = 32, *, steps: int | None = None
    ) -> list[dict[str, Any]]:
        """How well each layer's inverse reconstructs its input on any data, every position counted.

        Args:
            X, y, batch_size, steps: As for :meth:`fit`.

        Returns:
            Entries as in ``fit_report``.

        Raises:
            NotFittedError: Before :meth:`fit`, and if the model's weights have
                changed since.
        """
        self._need_fit()
        if self.identity is not None:
            self.identity.check()
        classes = sorted(self.network.weights)
        return measure(self.network, self.batches(X, y, batch_size, steps), classes, self._fit_options.samples)


class TrainedMIPIN(MIPIN):
    """MIP-IN with its convolutions trained as in the paper: ``conv_solver="trained"`` by default."""

    name = "mipin.trained"

    def __init__(self, model: keras.Model, *, conv_solver: str = "trained", **options: Any):
        super().__init__(model, conv_solver=conv_solver, **options)
