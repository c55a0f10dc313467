"""Bernoulli pixels."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from trainables.components import Name, registered
from trainables.likelihoods.base import LIKELIHOODS, Knobs, Likelihood
from trainables.metrics import Metric


@registered(LIKELIHOODS)
class BernoulliPixels(Likelihood):
    """Independent pixels with logits from the decoder; for grey pixels, minus the cross-entropy (DVAE section 8)."""

    name: Name = "bernoulli"
    outputs: ClassVar[int] = 1
    binary: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, Metric]] = {"bce": Metric("BCE [nats]")}

    def log_prob(self, x: Tensor, output: Tensor, knobs: Knobs) -> Tensor:
        logits = output[..., 0, :]
        return (x * logits - F.softplus(logits)).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        return output[..., 0, :].sigmoid()

    def measured(self, x: Tensor, output: Tensor, nats: Tensor) -> dict[str, Tensor]:
        return {"bce": nats}
