"""The contract of likelihoods p(x|z).

Shapes. B images, D pixels, z_shape = [L] or [L, K]; leading axes (samples) are allowed before B. A decoder gives
`outputs` numbers per pixel: output [..., B, outputs, D]. Log-likelihoods are in nats.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor

from trainables.components import Component
from trainables.latents import Latent, Latents
from trainables.metrics import Metric
from trainables.registry import Registry

LIKELIHOODS: Registry["Likelihood"] = Registry("likelihood")
Knobs = Mapping[str, Tensor]


class Affine(NamedTuple):
    """One output of a linear decoder, weight . z + bias for each pixel."""

    weight: Tensor
    """[D, *z_shape]."""
    bias: Tensor
    """[D]."""


class Likelihood(Component):
    """A distribution over pixels given a decoder's output."""

    outputs: ClassVar[int]
    """The number of decoder outputs per pixel."""
    binary: ClassVar[bool] = False
    """Whether pixels are bits or probabilities in [0, 1], not dequantized intensities."""
    analytic: ClassVar[bool] = False
    """Whether `expected_log_prob` is known: the likelihood can serve a guide and the estimator `silent`."""
    metrics: ClassVar[Mapping[str, Metric]] = {}
    """The metrics that this likelihood adds to those of every training."""
    alternative: ClassVar[str | None] = None
    """The likelihood to use with other decoders, if this one is only for linear decoders."""

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        """Log p(x|z) [..., B] of x [B, D].

        Args:
            x: the images.
            output: of the decoder [..., B, outputs, D].
            knobs: the member's values of the likelihood's fields, each a scalar tensor (`Component.knob`).
        """
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """E[x|z] [..., B, D]."""
        return output[..., 0, :]

    def deviation(self, output: Tensor) -> Tensor | None:
        """The standard deviation [..., B, D] of each pixel given z; None if the decoder does not learn one."""
        return None

    def measured(self, x: Tensor, output: Tensor, nats: Tensor) -> dict[str, Tensor]:
        """The values [B] of `metrics` for each image; a metric is their mean.

        Args:
            x: the images [B, D].
            output: of the decoder at one hard code for each image, [B, outputs, D].
            nats: -log p(x|z) [B].
        """
        return {}

    def expected_log_prob(self, x: Tensor, q: Latent, decoder: Sequence[Affine], knobs: Knobs) -> Tensor:
        """E_q[log p(x|z)] [B] under a linear decoder, in closed form.

        Args:
            x: the images [B, D].
            q: their posterior.
            decoder: the outputs of the linear decoder.
            knobs: as for `log_prob`.
        """
        raise NotImplementedError

    def check_expectation(self, latent: Latents) -> None:
        """Checks that `expected_log_prob` is known for these latents.

        Raises:
            ValueError: it is not known; the message says why.
        """
