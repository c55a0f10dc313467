"""A trained model for use: encodes, reconstructs and samples, without any training code.

from trainables.trained import TrainedVAE
vae = TrainedVAE.load("folder")
vae.reconstruct(images)

Shapes. N images of C channels, H x W pixels; z_shape = [L] or [L, K]. Input images are uint8; output images are on the
model's scale [0, 1] (`DataConfig.pixels`). Everything is computed on the CPU, in float32.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from trainables import objective
from trainables.checkpoint import read_checkpoint
from trainables.components import Count
from trainables.config import TrainingConfig
from trainables.latents import Latent
from trainables.models.base import ImageShape
from trainables.objective import VAE
from trainables.packing.cohort import EVALUATION_BATCH
from trainables.pixels import observed
from trainables.streams import Purpose, Streams

CONFIG, WEIGHTS = "config.json", "weights.safetensors"


class Description(BaseModel):
    """The content of `config.json`: the configuration that the weights belong to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    config: TrainingConfig
    image_shape: ImageShape
    epoch: Count
    """The last epoch trained; schedules have their values of this epoch."""


class TrainedVAE:
    """A model with the weights of one member.

    Without a seed, its random numbers are those of the member's evaluation: on the validation images, `encode` and
    `reconstruct` give the KL and the squared error that were reported for the last epoch.

    Args:
        description: the configuration and the epoch of the weights.
        model: the model, with its weights.
    """

    def __init__(self, description: Description, model: VAE):
        self.config, self.image_shape = description.config, description.image_shape
        self._description = description
        self._model = model.requires_grad_(False).eval()
        self._tensors = model.state_dict()
        knobs = {path: torch.tensor(value, dtype=torch.float64) for path, value in self.config.knobs().items()}
        current = objective.epoch_knobs(self.config, knobs, description.epoch)
        self._knobs = {path: value.to(torch.float32) for path, value in current.items()}

    # --- files -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_checkpoint(cls, checkpoint: bytes, config: TrainingConfig, image_shape: ImageShape) -> "TrainedVAE":
        """The model of one member, from its cohort's checkpoint.

        Args:
            checkpoint: as `CohortTraining.checkpoint` gives it.
            config: of the member.
            image_shape: [C, H, W] of its data set.

        Raises:
            ValueError: the checkpoint is damaged, or the member is not in it.
        """
        header, tensors = read_checkpoint(checkpoint)
        try:
            member = header.member(config.key())
        except KeyError:
            raise ValueError(f"member {config.key()} is not in this checkpoint") from None
        model = _empty(config, image_shape)
        for name, stacked in tensors.items():
            kind, _, name = name.partition("/")
            if kind == "group":
                own = [p for path, p in model.named_parameters() if path.startswith(f"{name}.")]
                vector_to_parameters(stacked[member].clone(), own)  # a copy, so that the other members' memory is freed
            elif kind == "buffer":
                model.get_buffer(name).copy_(stacked[member])
        return cls(Description(config=config, image_shape=image_shape, epoch=header.epoch), model)

    def save(self, folder: str | Path) -> None:
        """Writes `config.json` and `weights.safetensors` to an existing folder."""
        Path(folder, CONFIG).write_text(self._description.model_dump_json(indent=2))
        Path(folder, WEIGHTS).write_bytes(safetensors.torch.save(self._tensors))

    @classmethod
    def load(cls, folder: str | Path) -> "TrainedVAE":
        """Loads a model that `save` wrote; executes no code from the files.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: the files are damaged, or do not belong together.
        """
        try:
            description = Description.model_validate(json.loads(Path(folder, CONFIG).read_bytes()))
            model = _empty(description.config, description.image_shape)
            model.load_state_dict(safetensors.torch.load(Path(folder, WEIGHTS).read_bytes()))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise ValueError(f"{folder} has no trained model ({type(error).__name__})") from error
        return cls(description, model)

    # --- use ---------------------------------------------------------------------------------------------------------

    def encode(self, images: np.ndarray | Tensor, *, seed: int | None = None) -> Latent:
        """The posterior q(z|x) that codes are drawn from, with temperatures applied.

        Args:
            images: uint8 [N, C, H, W].
            seed: for the noise that dequantizes or binarizes pixels; None for the noise of the evaluation.

        Raises:
            ValueError: the images have another type or shape, or there are none.
        """
        posteriors = [self._posterior(x) for x in self._seen(images, self._streams(seed))]
        return type(posteriors[0])(*map(torch.cat, zip(*(q.parameters for q in posteriors), strict=True)))

    def reconstruct(self, images: np.ndarray | Tensor, *, seed: int | None = None) -> Tensor:
        """E[x|z] [N, C, H, W] at one code z ~ q(z|x) for each image. Arguments and errors: see `encode`."""
        return self.decode(self.codes(images, seed=seed))

    def codes(self, images: np.ndarray | Tensor, *, seed: int | None = None) -> Tensor:
        """One code z ~ q(z|x) for each image, [N, *z_shape]. Arguments and errors: see `encode`."""
        streams = self._streams(seed)
        seen = enumerate(self._seen(images, streams))
        return torch.cat([self._posterior(x).sample(self._noise(len(x), streams, step)) for step, x in seen])

    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """E[x|z] [n, C, H, W] at codes z ~ p(z), the prior."""
        # In every family, the posterior with all parameters 0 is the prior.
        prior = self.config.latent.posterior(torch.zeros(n, self.config.latent.encoder_features))
        return self.decode(prior.sample(self._noise(n, self._streams(seed), step=0)))

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z] [N, C, H, W] at codes [N, *z_shape]."""
        return self.config.likelihood.mean(self.output(z)).unflatten(-1, self.image_shape)

    def deviation(self, z: Tensor) -> Tensor | None:
        """The standard deviation [N, C, H, W] of each pixel at codes z; None if the decoder does not learn one."""
        found = self.config.likelihood.deviation(self.output(z))
        return None if found is None else found.unflatten(-1, self.image_shape)

    def output(self, z: Tensor) -> Tensor:
        """The decoder's output [N, outputs, C*H*W] at codes [N, *z_shape]: the parameters of the likelihood."""
        return objective.call(self._model, "decoder", self._tensors, z.flatten(1))

    def _posterior(self, x: Tensor) -> Latent:
        q = objective.posterior(self.config, self._model, self._tensors, x)
        return self.config.estimator.sampled(q, objective.sub_knobs(self._knobs, "estimator"))

    def _streams(self, seed: int | None) -> Streams:
        return Streams([self.config.seed if seed is None else seed])

    def _seen(self, images: np.ndarray | Tensor, streams: Streams) -> Iterator[Tensor]:
        """The images as the model sees them, in batches [B, C, H, W]."""
        # A copy, since the array may be read-only (mapped from a file), and PyTorch has no read-only tensors.
        images = torch.tensor(images) if isinstance(images, np.ndarray) else images
        if images.dtype != torch.uint8 or images.shape[1:] != self.image_shape or len(images) == 0:
            raise ValueError(
                f"images must be uint8 {['N', *self.image_shape]}, got {images.dtype} {list(images.shape)}"
            )
        for step, batch in enumerate(images.split(EVALUATION_BATCH)):
            (x,) = observed(
                self.config.data.pixels, batch[None], streams, Purpose.EVALUATION_PIXELS, epoch=0, step=step
            )
            yield x

    def _noise(self, n: int, streams: Streams, step: int) -> Tensor:
        draw = getattr(streams, self.config.latent.noise)
        return draw((n, *self.config.latent.z_shape), Purpose.EVALUATION_LATENT, epoch=0, step=step)[0]


def _empty(config: TrainingConfig, image_shape: ImageShape) -> VAE:
    """A model with uninitialized weights; PyTorch's random state does not change."""
    with torch.device("meta"):
        model = VAE(config, image_shape)
    return model.to_empty(device="cpu")
