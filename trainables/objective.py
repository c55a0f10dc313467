"""The objective of one member: reconstruction, KL, annealing and freezing.

Shapes. B images, D pixels, z_shape = [L] or [L, K]. Losses are in nats.
The functions are written for one member; the cohort lifts them with `torch.func.vmap`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.codes import code_metrics, code_sums
from trainables.config import TrainingConfig
from trainables.latents import Latent, scale_gradient
from trainables.likelihoods import Affine, Likelihood
from trainables.metrics import Metric, describe
from trainables.models.linear import LINEAR_OUTPUTS, Linear

Tensors = dict[str, Tensor]


class VAE(nn.Module):
    """An encoder, a decoder and, if the configuration has a guide, a second, linear decoder.

    It is only a container: `call` runs one part, with parameters from outside.
    """

    def __init__(self, config: TrainingConfig, image_shape: tuple[int, int, int]):
        super().__init__()
        features, pixels = math.prod(config.latent.z_shape), math.prod(image_shape)
        self.encoder = config.encoder.build(image_shape, config.latent.encoder_features)
        self.decoder = config.decoder.build(features, image_shape, config.likelihood.outputs)
        self.guide = Linear(features, pixels, config.guide.likelihood.outputs) if config.guide else None
        self.precision = config.precision


def call(model: VAE, part: str, tensors: Mapping[str, Tensor], *args: Tensor) -> Tensor:
    """Calls one part of the model with its parameters and buffers from `tensors`.

    The output has the dtype of the first argument, also if it was computed in a lower precision.
    """
    prefix = part + "."
    own = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    (x, *_) = args
    device = "cpu" if x.is_meta else x.device.type  # PyTorch refuses "meta"; no numbers are computed there
    with torch.autocast(device, torch.bfloat16, enabled=model.precision == "bf16", cache_enabled=False):
        output = functional_call(getattr(model, part), own, args, strict=True)
    return output.to(x.dtype)


def sub_knobs(knobs: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The knobs below a dotted path, by their name without the path."""
    return {path[len(prefix) + 1 :]: value for path, value in knobs.items() if path.startswith(prefix + ".")}


def estimator_knobs(knobs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The knobs that the estimator is called with: its own ones, and `running_loss`."""
    return sub_knobs(knobs, "estimator") | {"running_loss": knobs["running_loss"]}


@dataclass(frozen=True)
class Reconstruction:
    """-log p(x|z) of one decoder and likelihood, in nats: the `Loss` that estimators differentiate."""

    x: Tensor
    decode: Callable[[Tensor], Tensor]
    likelihood: Likelihood
    knobs: Mapping[str, Tensor]
    z_shape: tuple[int, ...]
    linear: Mapping[str, Tensor] | None = None
    """The weights of a linear decoder, by their name in `Linear`."""

    def output(self, z: Tensor) -> Tensor:
        """The decoder's output [..., outputs, D] at z [..., *z_shape]."""
        leading = z.shape[: z.dim() - len(self.z_shape)]
        return self.decode(z.reshape(-1, math.prod(self.z_shape))).unflatten(0, leading)

    def __call__(self, z: Tensor) -> Tensor:
        return -self.likelihood.log_prob(self.x, self.output(z), self.knobs)

    def expected(self, q: Latent) -> Tensor:
        """E_q[loss] [B] in closed form, from the likelihood."""
        assert self.linear is not None  # configurations that need it have a linear decoder
        return _expected_loss(self.x, q, self.linear, self.likelihood, self.knobs)


def _expected_loss(
    x: Tensor, q: Latent, linear: Mapping[str, Tensor], likelihood: Likelihood, knobs: Mapping[str, Tensor]
) -> Tensor:
    """E_q[-log p(x|z)] [B] under a linear decoder, with its weights by their name in `Linear`."""
    z_shape = q.parameters[0].shape[1:]
    outputs = [
        Affine(linear[f"{name}.weight"].unflatten(1, z_shape), linear[f"{name}.bias"])
        for name in LINEAR_OUTPUTS[: likelihood.outputs]
    ]
    return -likelihood.expected_log_prob(x, q, outputs, knobs)


class StepLoss(NamedTuple):
    """The loss of a training step and its reconstruction part; scalars in nats, summed over images."""

    loss: Tensor
    reconstruction: Tensor


def posterior(config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor) -> Latent:
    """q(z|x) of images [B, C, H, W]."""
    return config.latent.posterior(call(model, "encoder", tensors, x))


def reconstruction(config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, knobs: Tensors) -> Reconstruction:
    """The loss of the model's own decoder on images [B, C, H, W]."""
    return Reconstruction(
        x=x.flatten(1),
        decode=lambda z: call(model, "decoder", tensors, z),
        likelihood=config.likelihood,
        knobs=sub_knobs(knobs, "likelihood"),
        z_shape=config.latent.z_shape,
        linear=_part(tensors, "decoder") if config.decoder.linear else None,
    )


def guide_loss(config: TrainingConfig, tensors: Tensors, x: Tensor, q: Latent, knobs: Tensors) -> Tensor:
    """E_q[-log p(x|z)] [B] of the guide on images [B, C, H, W], in nats; 0 after the guide is over."""
    assert config.guide is not None
    over = knobs["guide.over"] > 0
    # Masking the loss is not enough: a gradient of 0 times an infinite weight is NaN. The precision is set to 1, not 0.
    linear = {
        name: torch.where(over, float(name == "alpha.bias"), value) for name, value in _part(tensors, "guide").items()
    }
    nats = _expected_loss(x.flatten(1), q, linear, config.guide.likelihood, sub_knobs(knobs, "guide.likelihood"))
    return torch.where(over, 0.0, nats)


def _part(tensors: Tensors, part: str) -> Tensors:
    return {name[len(part) + 1 :]: value for name, value in tensors.items() if name.startswith(part + ".")}


def training_loss(
    config: TrainingConfig,
    model: VAE,
    tensors: Tensors,
    x: Tensor,
    noise: Tensor,
    knobs: Tensors,
    *,
    guided: bool = True,
) -> StepLoss:
    """The loss of one step on images x [B, C, H, W].

    Args:
        config: any member of the cohort; only its shape fields are read.
        model: the modules.
        tensors: the member's parameters and buffers by name in the model.
        x: the images.
        noise: of shape `config.estimator.noise_shape((B, *z_shape))`.
        knobs: the member's knobs of this epoch by dotted path (`epoch_knobs`), and `running_loss`.
        guided: False if the guides of all members are over, so that none is computed.
    """
    q = posterior(config, model, tensors, x)
    total, surrogate = reconstruction_losses(config, model, tensors, x, q, noise, knobs, guided=guided)
    sampled = config.estimator.sampled(q, sub_knobs(knobs, "estimator"))
    trained = sampled if config.objective.kl_temperature == "forward" else q
    total = total + knobs["objective.kl_weight"] * trained.kl()
    return StepLoss(total.sum(), surrogate.detach().sum())


def reconstruction_losses(
    config: TrainingConfig,
    model: VAE,
    tensors: Tensors,
    x: Tensor,
    q: Latent,
    noise: Tensor,
    knobs: Tensors,
    *,
    guided: bool = True,
) -> tuple[Tensor, Tensor]:
    """The reconstruction loss that a step differentiates, including the guide, and the estimator's surrogate.

    Both are [B] nats. q is the posterior of the images x; for other arguments, see `training_loss`.
    """
    own_knobs = estimator_knobs(knobs)
    loss = reconstruction(config, model, tensors, x, knobs)
    if config.guide is None:
        surrogate = config.estimator(loss, q, noise, own_knobs)
        return surrogate, surrogate
    weight, silent = knobs["guide.weight"], None
    if guided:
        by_gradient = config.guide.anneal == "encoder_gradient"
        silent = guide_loss(config, tensors, x, scale_gradient(q, weight) if by_gradient else q, knobs)
    if config.guide.anneal == "encoder_gradient":
        surrogate = config.estimator(loss, scale_gradient(q, 1 - weight), noise, own_knobs)
        return surrogate if silent is None else surrogate + silent, surrogate
    surrogate = config.estimator(loss, q, noise, own_knobs)
    own = (1 - weight) * surrogate
    return own if silent is None else own + weight * silent, surrogate


def epoch_knobs(config: TrainingConfig, knobs: Tensors, epoch: int) -> Tensors:
    """The knobs of an epoch (counted from 1), with schedules applied; tensors may have an axis of members.

    `guide.weight` is the weight of the silent gradient. `guide.over` is 1 if the guide no longer changes the encoder,
    because its weight is 0 or the encoder is frozen; else it is 0.
    """
    current = dict(knobs)
    if config.guide is not None:
        weight = (1 - epoch * knobs["guide.annealing_rate"]).clamp(min=0)
        over = (weight == 0) | (epoch >= knobs["guide.freeze_epoch"])
        current |= {"guide.weight": weight, "guide.over": over.to(weight.dtype)}
    for name, value in config.estimator.scheduled(
        sub_knobs(knobs, "estimator"), (epoch - 1) / max(1, config.epochs - 1)
    ).items():
        current[f"estimator.{name}"] = value
    return current


def evaluation_sums(
    config: TrainingConfig, model: VAE, tensors: Tensors, x: Tensor, noise: Tensor, knobs: Tensors
) -> Tensors:
    """Sums of the reported quantities over images [B, C, H, W], with hard samples: scalars, and `codes.code_sums`.

    The KL is that of the distribution sampled from. noise: standard noise of the latent family, [B, *z_shape].
    """
    sampled = config.estimator.sampled(posterior(config, model, tensors, x), sub_knobs(knobs, "estimator"))
    loss = reconstruction(config, model, tensors, x, knobs)
    z = sampled.sample(noise)
    output = loss.output(z)
    nats = -config.likelihood.log_prob(loss.x, output, loss.knobs)
    squared = (loss.x - config.likelihood.mean(output)).square().sum(-1)
    sums = {"reconstruction": nats, "kl": sampled.kl(), "mse": squared, "saturated": sampled.saturated()}
    sums |= config.likelihood.measured(loss.x, output, nats)
    return {name: value.sum() for name, value in sums.items()} | code_sums(sampled, z)


def metrics_of(config: TrainingConfig, sums: Tensors, images: int, pixels: int) -> Tensors:
    """Computes the reported metrics from sums over images.

    elbo, kl: nats per image. bits_per_dim: bits per pixel and channel; plus 8 bits if 8-bit pixels are dequantized
    (SG C.1). mse: squared error of the decoder's mean, summed over pixels (SG Table 2); mse_per_pixel: its mean (DST
    Table 1). saturated: the share of latents with an (almost) certain outcome. The likelihood adds its own metrics
    (`Likelihood.metrics`); `codes.code_metrics` adds active units, and codebook usage and perplexity of discrete codes.
    """
    mean = {name: value / images for name, value in sums.items()}
    elbo = -(mean["reconstruction"] + mean["kl"])
    offset = 8.0 if config.data.pixels == "dequantize" else 0.0
    own = {name: mean[name] for name in config.likelihood.metrics}
    return {
        "elbo": elbo,
        "bits_per_dim": -elbo / (pixels * math.log(2)) + offset,
        "kl": mean["kl"],
        "mse": mean["mse"],
        "mse_per_pixel": mean["mse"] / pixels,
        "saturated": mean["saturated"],
        **own,
        **{name: value.to(elbo.dtype) for name, value in code_metrics(config.latent.family, sums, images).items()},
    }


describe(
    {
        "elbo": Metric("ELBO [nats]", "max"),
        "bits_per_dim": Metric("bits/dim"),
        # Silent Gradients, section 4.2, takes more KL for a more informative code; KL alone is neither good nor bad.
        "kl": Metric("KL [nats]", "max", starred=False),
        "mse": Metric("squared error"),
        "mse_per_pixel": Metric("squared error a pixel"),
        "saturated": Metric("saturated latents"),
    }
)
