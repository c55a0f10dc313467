"""Registers the best model of every study in MLflow, for use without this program's sweeps.

import mlflow
mlflow.set_tracking_uri("sqlite:///runs/mlflow.db")
vae = mlflow.pyfunc.load_model("models:/quickstart.temperatures@best").unwrap_python_model().vae

`vae` is a `trainables.trained.TrainedVAE`. A model's folder holds its weights (safetensors), its configuration (JSON)
and a copy of the code that reads them. Nothing is pickled.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

import trainables
from search_spaces.space import Study
from sweeps.analysis import cells as tables
from sweeps.analysis.labels import describe, member_tags
from sweeps.planning.plan import Member
from sweeps.records.checkpoints import NoModelError, trained_model
from sweeps.records.ledger import Row
from sweeps.records.storage import Storage
from sweeps.report.images import contact_sheet
from trainables.data import DataError, Images, load
from trainables.trained import TrainedVAE

ALIAS = "best"
_REQUIRED = ("mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch")
_EXAMPLES, _SHOWN = 4, 10


@dataclass(frozen=True)
class BestModel:
    """The configuration of a study with the best mean over seeds, and its best seed."""

    sweep: str
    study: Study
    cell: tables.Cell
    member: Member
    row: Row

    @property
    def model_name(self) -> str:
        """The name of the registered model; MLflow allows no slash in it."""
        return f"{self.sweep}.{self.study.name.replace('/', '.')}"

    @property
    def description(self) -> str:
        """The choice and its reason, in words."""
        metric, fresh = self.study.metric, self.cell.confirmation
        confirmed = ""
        if fresh is not None and metric in fresh.mean:
            seeds = f"{len(fresh.values(metric))} of {fresh.planned} fresh seeds"
            confirmed = f"Confirmed: mean {metric} {fresh.mean[metric]:.4g} over {seeds}. "
        return (
            f"The best of {self.study.title}: {describe(self.cell.labels)}, mean {metric} "
            f"{self.cell.mean[metric]:.4g} over {len(self.cell.values(metric))} of {self.cell.planned} seeds. "
            f"{confirmed}The weights are of the best seed, {self.member.config.seed}: "
            f"{metric} {self.row.metrics[metric]:.4g}."
        )

    @property
    def tags(self) -> dict[str, str]:
        return {"sweep": self.sweep, **member_tags(self.member)}


def best_of(sweep: str, study: Study, ended: Sequence[tuple[Member, Row]]) -> BestModel | None:
    """The best finished seed of the configuration with the best mean over seeds; None if no seed has finished.

    Only seeds that choose count, so that a confirmation registers no other weights of the same configuration.
    """
    rows = {member.key: row for member, row in ended}
    cell = tables.standing(study, tables.cells(study, [member for member, _ in ended], rows))
    if cell is None:
        return None
    values = cell.values(study.metric)
    seed = (min if study.mode == "min" else max)(values, key=lambda seed: values[seed])
    (member,) = (member for member in cell.members if member.config.seed == seed)
    return BestModel(sweep, study, cell, member, rows[member.key])


def register(
    client: MlflowClient, experiment: str, run_id: str, best: BestModel, storage: Storage, data_dir: Path
) -> ModelVersion:
    """Gives a model the alias `best`. Each member has at most one version.

    Args:
        client: the client of tracking and registry.
        experiment: the id of the sweep's experiment.
        run_id: the id of the member's run.
        best: the model to register.
        storage: the storage with its checkpoint.
        data_dir: the folder of its data set.

    Raises:
        NoModelError: its checkpoint or its data set is missing.
        MlflowException: MLflow cannot be asked.
    """
    chosen = f"name = '{best.model_name}'"
    versions = {found.tags.get("key"): found for found in client.search_model_versions(chosen)}
    found = versions.get(best.member.key)
    if found is None:
        model = _logged(client, experiment, run_id, best, storage, data_dir)
        if not client.search_registered_models(chosen):
            client.create_registered_model(best.model_name, {"sweep": best.sweep}, best.study.title)
        found = client.create_model_version(
            best.model_name,
            model.artifact_location,  # models:/m-… would be looked up where MLflow's global settings point
            run_id,
            best.tags,
            description=best.description,
            await_creation_for=None,  # pyright: ignore[reportArgumentType]  # a database makes it at once
            model_id=model.model_id,
        )
        # The tag that `mlflow.register_model` sets, and that the user interface shows.
        link = json.dumps([{"name": best.model_name, "version": found.version}])
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: link})
    elif found.description != best.description:  # more seeds have ended since
        client.update_model_version(best.model_name, found.version, best.description)
    (registered,) = client.search_registered_models(chosen)
    if str(registered.aliases.get(ALIAS)) != str(found.version):  # MLflow gives an integer here and text there
        client.set_registered_model_alias(best.model_name, ALIAS, found.version)
    return found


def _logged(
    client: MlflowClient, experiment: str, run_id: str, best: BestModel, storage: Storage, data_dir: Path
) -> LoggedModel:
    """The logged model of a member; made and uploaded if there is none."""
    name = best.study.name.replace("/", "-")
    for known in client.search_logged_models([experiment], f"name = '{name}' AND tags.key = '{best.member.key}'"):
        if known.status == LoggedModelStatus.READY:
            return known
        client.delete_logged_model(known.model_id)  # incomplete: its driver was killed
    data = best.member.config.data
    try:
        images = load(data.name, data_dir).limited(data.limit)
    except DataError as error:
        raise NoModelError(str(error)) from None
    vae = trained_model(storage, best.member.config, best.row.epochs, images.image_shape)
    params = {path: str(value) for path, value in best.member.config.flat().items()}
    model = client.create_logged_model(experiment, name, run_id, best.tags, params, model_type="VAE")
    with tempfile.TemporaryDirectory() as folder:
        saved, figure = Path(folder, "model"), Path(folder, "reconstructions.png")
        save(vae, images.validation[:_EXAMPLES], saved, Model(run_id=run_id, model_id=model.model_id))
        figure.write_bytes(_figure(vae, images))
        client.log_model_artifacts(model.model_id, str(saved))
        client.log_artifact(run_id, str(figure), "figures")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, best.row.epochs)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def save(vae: TrainedVAE, examples: np.ndarray, folder: Path, model: Model | None = None) -> None:
    """Writes a model as an MLflow Python function, with its code, into a new folder.

    Args:
        vae: the model.
        examples: images uint8 [N, C, H, W], kept as the example of the input.
        folder: the folder to make.
        model: further metadata for MLflow.
    """
    images = (-1, *vae.image_shape)
    with tempfile.TemporaryDirectory() as weights:
        vae.save(weights)
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"vae": weights},
            code_paths=[str(Path(trainables.__file__).parent)],
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIRED],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.uint8), images)]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), images)]),
                params=ParamSchema([ParamSpec("task", "string", "reconstruct"), ParamSpec("seed", "long", 0)]),
            ),
            input_example=examples,
            mlflow_model=model,
        )


def _figure(vae: TrainedVAE, images: Images) -> bytes:
    shown = images.validation[:_SHOWN]
    return contact_sheet(
        {
            "validation images": shown / 255,
            "reconstructions": vae.reconstruct(shown).numpy(),
            "samples from the prior": vae.sample(len(shown)).numpy(),
        }
    )
