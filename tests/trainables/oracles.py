"""Expectations computed slowly: by enumeration of states and by Gauss-Hermite quadrature.

The oracles use only the containers of parameters of the code under test. Shapes are as in `trainables.latents`;
everything is float64.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.estimators import Estimator
from trainables.latents import Bernoulli, Categorical, Gaussian, Latent

GAUSS_HERMITE_NODES = 12
"""The quadrature is exact for polynomials up to degree 23."""


def codes_and_weights(q: Latent) -> tuple[Tensor, Tensor]:
    """Codes z [S, B, *z_shape] and weights [S, B], differentiable in q, with E_q[f(z)] = sum_S weight * f(z)."""
    match q:
        case Gaussian():
            batch, latents = q.mean.shape
            nodes, weights = np.polynomial.hermite_e.hermegauss(GAUSS_HERMITE_NODES)
            grid = torch.tensor(list(itertools.product(nodes, repeat=latents)), dtype=torch.float64)
            weight = torch.tensor(list(itertools.product(weights / weights.sum(), repeat=latents))).prod(-1)
            z = q.mean + torch.exp(0.5 * q.log_variance) * grid[:, None]
            return z, weight[:, None].expand(-1, batch)
        case Bernoulli():
            batch, latents = q.logits.shape
            z = torch.tensor(list(itertools.product((0.0, 1.0), repeat=latents)), dtype=torch.float64)[:, None]
            p = 1 / (1 + torch.exp(-q.logits))
            return z.expand(-1, batch, -1), torch.where(z > 0, p, 1 - p).prod(-1)
        case Categorical():
            batch, latents, categories = q.logits.shape
            index = torch.tensor(list(itertools.product(range(categories), repeat=latents)))
            z = F.one_hot(index, categories).double()[:, None]
            p = torch.exp(q.logits) / torch.exp(q.logits).sum(-1, keepdim=True)
            return z.expand(-1, batch, -1, -1), (z * p).sum(-1).prod(-1)


def expectation(q: Latent, f: Callable[[Tensor], Tensor]) -> Tensor:
    """E_q[f(z)] [B, ...] for f: z [S, B, *z_shape] -> [S, B, ...]."""
    z, weight = codes_and_weights(q)
    value = f(z)
    return (weight.reshape(*weight.shape, *[1] * (value.dim() - 2)) * value).sum(0)


def gradients(surrogate: Tensor, q: Latent) -> tuple[Tensor, ...]:
    """Gradients of the sum over images in q's parameters, each with the parameter's shape."""
    return torch.autograd.grad(surrogate.sum(), q.parameters)


def standard_noise(family: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal, logistic or Gumbel noise in float64."""
    if family == "gaussian":
        return torch.randn(shape, dtype=torch.float64, generator=generator)
    u = torch.rand(shape, dtype=torch.float64, generator=generator).clamp(1e-12, 1 - 1e-12)
    return torch.logit(u) if family == "bernoulli" else -torch.log(-torch.log(u))


def random_posterior(
    family: str, batch: int, latents: int, categories: int, generator: torch.Generator, spread: float = 1.0
) -> Latent:
    """A posterior whose parameters are leaves that require gradients."""

    def leaf(*shape: int) -> Tensor:
        return (spread * torch.randn(batch, *shape, dtype=torch.float64, generator=generator)).requires_grad_()

    match family:
        case "gaussian":
            return Gaussian(leaf(latents), leaf(latents))
        case "bernoulli":
            return Bernoulli(leaf(latents))
        case _:
            return Categorical(leaf(latents, categories))


def repeated(q: Latent, draws: int) -> Latent:
    """Repeats the distribution of q's only image as `draws` images, each with its own parameters."""
    return type(q)(*(p.detach().expand(draws, *p.shape[1:]).clone().requires_grad_() for p in q.parameters))


def standard_errors_off(draws: Tensor, desired: Tensor) -> float:
    """Distance of the mean of draws [S, ...] from the desired value in standard errors, in the worst coordinate."""
    error = (draws.mean(0) - desired).abs()
    return (error / (draws.std(0) / len(draws) ** 0.5)).max().item()


# --- one problem for all estimators -----------------------------------------------------------------------------------

LATENTS, CATEGORIES = 2, 3


class Polynomial:
    """The loss sum_d (w_d . z + b_d)^degree: [..., B, *z_shape] -> [..., B]."""

    def __init__(self, family: str, degree: int):
        generator = torch.Generator().manual_seed(1)
        self.event_dims = 2 if family == "categorical" else 1
        features = LATENTS * CATEGORIES if family == "categorical" else LATENTS
        self.weight = torch.randn(4, features, dtype=torch.float64, generator=generator)
        self.bias = torch.randn(4, dtype=torch.float64, generator=generator)
        self.degree = degree

    def __call__(self, z: Tensor) -> Tensor:
        return (z.flatten(-self.event_dims) @ self.weight.mT + self.bias).pow(self.degree).sum(-1)

    def expected(self, q: Latent) -> Tensor:
        raise NotImplementedError


def one_image(family: str) -> Latent:
    """A posterior for one image; one of its two bits has a positive logit, the other a negative one."""
    return random_posterior(family, 1, LATENTS, CATEGORIES, torch.Generator().manual_seed(8), spread=0.7)


def draws_and_exact(estimator: Estimator, family: str, *, degree: int, draws: int) -> tuple[Tensor, Tensor]:
    """Gradient estimates [draws, P], and the enumerated gradient of the expectation under `sampled(q)` [P]."""
    loss, q = Polynomial(family, degree), one_image(family)
    exact = gradients(expectation(estimator.sampled(q, {}), loss), q)
    rows = repeated(q, draws)
    noise_shape = estimator.noise_shape(tuple(rows.parameters[0].shape))
    noise = standard_noise(family, noise_shape, torch.Generator().manual_seed(7))
    knobs = {"running_loss": torch.tensor(2.0, dtype=torch.float64)}
    estimates = gradients(estimator(loss, rows, noise, knobs), rows)
    return torch.cat([g.flatten(1) for g in estimates], 1), torch.cat([g.flatten() for g in exact])
