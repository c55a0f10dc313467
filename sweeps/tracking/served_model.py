"""The code of a served model. MLflow copies it into every logged model ("models from code"); nothing is pickled.

It imports only `trainables`, which is copied with it, and installed packages; nothing of `sweeps`.
"""

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from trainables.latents import Gaussian
from trainables.trained import TrainedVAE


class ServedVAE(PythonModel):
    """A trained model behind MLflow's `predict`; `unwrap_python_model().vae` is the model itself."""

    vae: TrainedVAE

    def load_context(self, context: PythonModelContext) -> None:
        self.vae = TrainedVAE.load(context.artifacts["vae"])

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> Any:
        """Reconstructs, samples (one for each given image) or encodes, as params["task"] says, with params["seed"].

        Args:
            context: not used.
            model_input: uint8 [N, C, H, W].
            params: task and seed, by default reconstruct and 0.

        Returns:
            Images float32 [N, C, H, W] in [0, 1]; for encode the means of the codes [N, *z_shape].

        Raises:
            ValueError: the task is unknown.
        """
        task, seed = (params or {}).get("task", "reconstruct"), (params or {}).get("seed", 0)
        if task == "reconstruct":
            return self.vae.reconstruct(model_input, seed=seed).numpy()
        if task == "sample":
            return self.vae.sample(len(model_input), seed=seed).numpy()
        if task == "encode":
            q = self.vae.encode(model_input, seed=seed)
            return (q.mean if isinstance(q, Gaussian) else q.probs).numpy()
        raise ValueError(f"task must be reconstruct, sample or encode, got {task!r}")


set_model(ServedVAE())
