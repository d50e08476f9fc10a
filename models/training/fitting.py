"""Fitting: the models of a run, learnt from its data.

The first model learns from the training split; the validation split chooses its epoch and says how good it is. The
*refit* (scikit-learn's word) is a second model with the same settings and seed that learns from both splits, once there
is nothing left to choose. In a collection of few artists the validation artists count: it is the one in use, while the
scores and the thresholds of the validation split are those of the first. `Run.model_file` says which is which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgc.models import classical
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.runs.run import Run
from mgc.models.training.assembly import RunData, build_learner, open_run
from mgc.models.training.board import TensorBoardLogger
from mgc.models.training.loop import Echo, Trainer
from mgc.models.training.predict import vectors
from mgc.models.training.search import LabelledVectors, base_classifier, search
from mgc.models.training.validation import accuracies
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: Checkpoint of the refit of a network.
REFIT_STATE = "refit-last.pt"


def fit(run: Run, data: RunData, echo: Echo = print, ranks: Ranks = SINGLE_PROCESS) -> dict[str, Any]:
    """Learn from the training split, from the run's last checkpoint if there is one, and write the model.

    Args:
        run: run to train.
        data: its data.
        echo: prints a line.
        ranks: processes that train together.

    Returns:
        What the summary of the run says of the model.

    Raises:
        MgcError: see `Trainer.fit`.
    """
    if data.system.kind == "classical":
        return _fit_classical(run, data, echo)
    trainer = Trainer(run, build_learner(run, data, echo, ranks), data.training, data.validation, echo=echo)
    with contextlib.ExitStack() as stack:
        if run.config.get("tensorboard") and ranks.is_main:
            trainer.on_epoch_end = stack.enter_context(TensorBoardLogger(run)).add
        progress = trainer.fit()
    best = progress.history[progress.best_epoch - 1]
    summary = {"epochs": progress.epoch, "best_epoch": progress.best_epoch, "best": best}
    return summary | ({"damaged": progress.damaged} if progress.damaged else {})


def refit(
    run: Run,
    stores: Sequence[Store],
    summary: Mapping[str, Any],
    echo: Echo = print,
    ranks: Ranks = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Learn once more, from training and validation split, and write the model.

    Args:
        run: run whose first model is fitted.
        stores: store of each input.
        summary: what `fit` returned.
        echo: prints a line.
        ranks: processes that train together.

    Returns:
        What the summary of the run says of the refit: the number of slices and tracks, and for a network loss and
        accuracy on these in its last epoch.

    Raises:
        MgcError: see `Trainer.fit`.
    """
    data = open_run(run, stores, ranks, refit=True)
    training = data.training
    size = {"slices": len(training), "tracks": int(training.tracks.max()) + 1}
    echo(f"refit: {size['slices']} slices of {size['tracks']} tracks, those for validation among them")
    if data.system.kind == "classical":
        estimator = _new_estimator(run, data, summary.get("search", {}).get("chosen", {}))
        classical.fit(estimator, *_labelled_vectors(run, data))
        run.write_files({run.model_file(): classical.encode(estimator)})
        return size
    learner = build_learner(run, data, echo, ranks, state_file=REFIT_STATE)
    progress = Trainer(run, learner, training, data.validation, run.model_file(), REFIT_STATE, echo).fit()
    last = progress.history[-1]
    scores = {name: last[name] for name in ("train_loss", "train_accuracy")}
    return size | scores | ({"damaged": progress.damaged} if progress.damaged else {})


def _fit_classical(run: Run, data: RunData, echo: Echo) -> dict[str, Any]:
    """Fit a classical system, with hyper-parameters by grid search if the run asks for it; see `fit`."""
    system, validation = data.system, data.validation
    assert validation is not None  # only a refit has none
    fitting_data = _labelled_vectors(run, data)
    estimator = _new_estimator(run, data, {})
    result = search(estimator, system.grid, fitting_data, echo) if run.config.get("search") else None
    if result:
        base_classifier(estimator).set_params(**result.best.values)
    classical.fit(estimator, *fitting_data)
    labels = validation.stream.labels
    validation_x = vectors(system, _specs(run), validation.stream, "validation")
    run.write_files({run.model_file("validation"): classical.encode(estimator)})
    probabilities = classical.predict_proba(estimator, validation_x, len(labels))
    scores = accuracies(probabilities, labels, validation.tracks)
    summary: dict[str, Any] = {"best": {f"validation_{name}": value for name, value in scores.items()}}
    return summary | ({"search": result.as_dict()} if result else {})


def _new_estimator(run: Run, data: RunData, values: Mapping[str, Any]) -> Pipeline:
    """Build the estimator of a classical system, with some hyper-parameters, and seed it."""
    estimator = data.system.build(len(run.classes))
    classical.set_seed(estimator, run.config["seed"])
    base_classifier(estimator).set_params(**values)
    return estimator


def _labelled_vectors(run: Run, data: RunData) -> LabelledVectors:
    """The vectors to learn from, with genre, track and artist of each."""
    training = data.training
    tracks = training.columns.table()["track_id"].to_pylist()
    ids = run.selection.tracks.select(["track_id", "artist_id"]).to_pydict()
    artist_of = dict(zip(ids["track_id"], ids["artist_id"], strict=True))
    x = vectors(data.system, _specs(run), training.stream, "features")
    return LabelledVectors(x, training.stream.labels, tracks, [artist_of[track] for track in tracks])


def _specs(run: Run) -> list[FeatureSpec]:
    return [source.spec for source in run.sources]
