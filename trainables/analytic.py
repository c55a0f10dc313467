"""The analytic expected log-likelihood of linear decoders: the Silent Gradient.

Shapes. B images, D pixels, L latents, K categories. Log-likelihoods are in nats.

A linear decoder gives each pixel a mean u = w_mu z + b_mu and, if the scale is learned, a precision
v = w_alpha z + b_alpha with v = 1 / standard deviation. Joint cumulants of independent latents add up. So a family only
gives the means of u and v, and sums of cumulants over latents. With a learned scale this takes five matrix products for
Gaussian latents and ten for Bernoulli and Categorical latents; with a fixed variance, two for all. No L x L array is
formed. Source: Silent Gradients, sections 3.1, 4.1 and appendix B, corrected (eq. 3, 5, 7 and 60 have misprints, see
docs/errata.md).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.polynomial.chebyshev import chebder
from torch import Tensor
from torch.nn import functional as F

from trainables.latents import Bernoulli, Categorical, Gaussian, Latent

LogTerm = Literal["taylor", "exact"]


@dataclass(frozen=True)
class Cumulants:
    """Means of u and v, and their joint cumulants of order 2 (s), 3 (t) and 4 (f), each [B, D] or the number 0.0."""

    u: Tensor
    v: Tensor
    s_uu: Tensor
    s_uv: Tensor
    s_vv: Tensor
    t_uuv: Tensor | float = 0.0
    t_uvv: Tensor | float = 0.0
    t_vvv: Tensor | float = 0.0
    f_uuvv: Tensor | float = 0.0
    f_vvvv: Tensor | float = 0.0


def expected_log_likelihood(
    x: Tensor,
    q: Latent,
    weight_mu: Tensor,
    bias_mu: Tensor,
    *,
    variance: Tensor | float | None = None,
    weight_alpha: Tensor | None = None,
    bias_alpha: Tensor | None = None,
    log_term: LogTerm = "taylor",
) -> Tensor:
    """E_q[log N(x; u(z), scale)] of a linear decoder, in closed form.

    Args:
        x: images [B, D].
        q: the posterior of B images.
        weight_mu: [D, L], or [D, L, K] for a Categorical.
        bias_mu: [D].
        variance: the fixed variance of every pixel; None for a learned precision.
        weight_alpha, bias_alpha: of the precision v(z), with the shapes of the mean's; None for a fixed variance.
        log_term: the formula for E[log v^2]. "taylor" is the paper's second-order expansion; for Gaussian latents its
            log-likelihood is too high, by up to 0.18 nats per pixel if the mean of v is near its standard deviation.
            "exact" is the closed form for Gaussian latents.

    Returns:
        [B] nats, summed over pixels; differentiable in all tensors.

    Raises:
        ValueError: neither or both of variance and weight_alpha are given, weight_alpha comes without bias_alpha,
            shapes disagree, log_term is unknown, or it is "exact" for discrete latents.
    """
    _check(x, q, weight_mu, bias_mu, variance, weight_alpha, bias_alpha, log_term)
    if variance is not None:
        mean, spread = _mean_and_variance(q, weight_mu, bias_mu)
        squared = ((x - mean).square() + spread).sum(-1)
        log_variance = torch.as_tensor(variance, dtype=x.dtype, device=x.device).log()
        return -0.5 * squared / variance - 0.5 * x.shape[-1] * (math.log(2 * math.pi) + log_variance)
    assert weight_alpha is not None  # by _check
    assert bias_alpha is not None
    c = _cumulants(q, weight_mu, bias_mu, weight_alpha, bias_alpha)
    # With deviations from x, terms are small if the fit is good; powers of u would give differences of large numbers.
    r = c.u - x
    v2 = c.v.square() + c.s_vv
    # E[(x-u)^2 v^2] with a learned scale; r replaces u, and x = 0.
    weighted = (
        r.square() * v2
        + 4 * r * c.v * c.s_uv
        + 2 * r * c.t_uvv
        + c.v.square() * c.s_uu
        + 2 * c.v * c.t_uuv
        + c.s_uu * c.s_vv
        + 2 * c.s_uv.square()
        + c.f_uuvv
    )
    if log_term == "exact":
        log_v2 = expected_log_square(c.v, c.s_vv)
    else:
        variance_v2 = 4 * c.v.square() * c.s_vv + 4 * c.v * c.t_vvv + 2 * c.s_vv.square() + c.f_vvvv
        log_v2 = v2.log() - variance_v2 / (2 * v2.square())
    return (0.5 * (log_v2 - weighted) - 0.5 * math.log(2 * math.pi)).sum(-1)


def _check(
    x: Tensor,
    q: Latent,
    weight_mu: Tensor,
    bias_mu: Tensor,
    variance: Tensor | float | None,
    weight_alpha: Tensor | None,
    bias_alpha: Tensor | None,
    log_term: str,
) -> None:
    expected = (x.shape[-1], *q.parameters[0].shape[1:])
    if tuple(weight_mu.shape) != expected or tuple(bias_mu.shape) != expected[:1]:
        raise ValueError(
            f"need weight_mu {expected} and bias_mu {expected[:1]}, "
            f"got {tuple(weight_mu.shape)} and {tuple(bias_mu.shape)}"
        )
    if (variance is None) == (weight_alpha is None):
        raise ValueError("give exactly one of variance and weight_alpha")
    if (weight_alpha is None) != (bias_alpha is None):
        raise ValueError("give weight_alpha and bias_alpha together, or neither")
    if (
        weight_alpha is not None
        and bias_alpha is not None
        and (weight_alpha.shape != weight_mu.shape or bias_alpha.shape != bias_mu.shape)
    ):
        raise ValueError(
            f"need weight_alpha and bias_alpha shaped as weight_mu {expected} and bias_mu {expected[:1]}, "
            f"got {tuple(weight_alpha.shape)} and {tuple(bias_alpha.shape)}"
        )
    if log_term not in ("taylor", "exact"):
        raise ValueError(f"log_term must be 'taylor' or 'exact', got {log_term!r}")
    if log_term == "exact" and variance is None and not isinstance(q, Gaussian):
        raise ValueError(f"log_term 'exact' needs Gaussian latents, got {q.family}; use 'taylor'")


def _mean_and_variance(q: Latent, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """E[u] and S_uu, each [B, D]."""
    match q:
        case Gaussian():
            return F.linear(q.mean, weight, bias), F.linear(q.variance, weight.square())
        case Bernoulli():
            p = q.probs
            return F.linear(p, weight, bias), F.linear(p * (1 - p), weight.square())
        case Categorical():
            weight, bias = _centred(weight, bias)
            first = _per_latent(q.probs, weight)
            second = F.linear(q.probs.flatten(-2), weight.square().flatten(-2))
            return first.sum(-3) + bias, second - first.square().sum(-3)


def _cumulants(q: Latent, w_mu: Tensor, b_mu: Tensor, w_alpha: Tensor, b_alpha: Tensor) -> Cumulants:
    match q:
        case Gaussian():
            c2 = q.variance
            return Cumulants(
                F.linear(q.mean, w_mu, b_mu),
                F.linear(q.mean, w_alpha, b_alpha),
                F.linear(c2, w_mu.square()),
                F.linear(c2, w_mu * w_alpha),
                F.linear(c2, w_alpha.square()),
            )
        case Bernoulli():
            p = q.probs
            c2 = p * (1 - p)
            c3 = c2 * (1 - 2 * p)
            excess = c2 * (1 - 6 * c2)  # c4 - 3 c2^2
            uu, uv, vv = w_mu.square(), w_mu * w_alpha, w_alpha.square()
            return Cumulants(
                F.linear(p, w_mu, b_mu),
                F.linear(p, w_alpha, b_alpha),
                F.linear(c2, uu),
                F.linear(c2, uv),
                F.linear(c2, vv),
                F.linear(c3, uu * w_alpha),
                F.linear(c3, vv * w_mu),
                F.linear(c3, vv * w_alpha),
                F.linear(excess, uv.square()),
                F.linear(excess, vv.square()),
            )
        case Categorical():
            return _categorical_cumulants(q.probs, w_mu, b_mu, w_alpha, b_alpha)


def _categorical_cumulants(p: Tensor, w_mu: Tensor, b_mu: Tensor, w_alpha: Tensor, b_alpha: Tensor) -> Cumulants:
    """The cumulants from the raw moments m_ab = sum_k p_k w_mu,k^a w_alpha,k^b of each latent, [L, B, D]."""
    w_mu, b_mu = _centred(w_mu, b_mu)
    w_alpha, b_alpha = _centred(w_alpha, b_alpha)
    uu, uv, vv = w_mu.square(), w_mu * w_alpha, w_alpha.square()
    u, v = _per_latent(p, w_mu), _per_latent(p, w_alpha)
    m20, m11, m02 = _per_latent(p, uu), _per_latent(p, uv), _per_latent(p, vv)
    m21, m12, m03 = _per_latent(p, uu * w_alpha), _per_latent(p, w_mu * vv), _per_latent(p, vv * w_alpha)
    m22, m04 = _per_latent(p, uv.square()), _per_latent(p, vv.square())
    c20, c11, c02 = m20 - u * u, m11 - u * v, m02 - v * v
    c21 = m21 - 2 * u * c11 - v * m20
    c12 = m12 - 2 * v * c11 - u * m02
    c03 = m03 - 3 * v * m02 + 2 * v**3
    c22 = m22 - 2 * u * m12 - 2 * v * m21 + u * u * m02 + v * v * m20 + 4 * u * v * m11 - 3 * (u * v) ** 2
    c04 = m04 - 4 * v * m03 + 6 * v * v * m02 - 3 * v**4
    return Cumulants(
        u.sum(-3) + b_mu,
        v.sum(-3) + b_alpha,
        c20.sum(-3),
        c11.sum(-3),
        c02.sum(-3),
        c21.sum(-3),
        c12.sum(-3),
        c03.sum(-3),
        (c22 - c20 * c02 - 2 * c11.square()).sum(-3),
        (c04 - 3 * c02.square()).sum(-3),
    )


def _centred(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """An equal decoder of one-hot codes, with mean 0 over each latent's weights [D, L, K].

    Raw moments would lose digits to a common offset.
    """
    offset = weight.mean(-1, keepdim=True)
    return weight - offset, bias + offset.sum((-2, -1))


def _per_latent(p: Tensor, weight: Tensor) -> Tensor:
    """sum_k p[b, l, k] weight[d, l, k] as [L, B, D]: one matrix product, batched over latents."""
    return p.transpose(-3, -2) @ weight.movedim(-3, -1)


# --- E[log v^2] for Gaussian v ---------------------------------------------------------------------------------------
#
# With y^2 = mean^2 / (2 variance), E[log v^2] = log variance - gamma - log 2 + G(y), where
# G(y) = 2 y^2 2F2(1, 1; 3/2, 2; -y^2) = 4 * (integral of Dawson's function from 0 to y). G grows as log(4 e^gamma y^2),
# so h = G - log(1 + 4 e^gamma y^2) is bounded and smooth and vanishes at both ends; in t = y^2 / (2 + y^2) a Chebyshev
# series of 60 terms reaches 1e-13. Adding the logarithms analytically leaves
#     E[log v^2] = log(mean^2 + variance / (2 e^gamma)) + h(t),
# which loses no digits anywhere. The coefficients were fitted in 40-digit arithmetic; a test refits some of them.

_EULER_GAMMA = 0.5772156649015329
_FLOAT32_TERMS = 28
_RESIDUAL = (
    -0.2762653234967062,
    0.20869770718959782,
    0.19247899777617453,
    -0.17953280545113204,
    0.06652032887495127,
    -0.019384329810047257,
    0.013157963199950202,
    -0.007518333605496778,
    0.0027607425076005207,
    -0.0016553713196475676,
    0.0010041880486853347,
    -0.0004025949638754539,
    0.0002499254593752028,
    -0.0001479003197763151,
    6.084829112203469e-05,
    -4.156753294409627e-05,
    2.250417810503823e-05,
    -9.6871762143281e-06,
    7.337805448185526e-06,
    -3.3491994189527425e-06,
    1.706074354993448e-06,
    -1.3044606989490031e-06,
    4.7201049230431124e-07,
    -3.4682741992255075e-07,
    2.1277303662221568e-07,
    -6.918244244124121e-08,
    7.615887752570355e-08,
    -2.7271383977729482e-08,
    1.4849311516369674e-08,
    -1.4900249072829146e-08,
    2.202473228837915e-09,
    -4.5726031341201405e-09,
    1.8368390973863754e-09,
    -3.7277827290604987e-10,
    1.194020061172986e-09,
    4.860330622128072e-11,
    2.9356216275872083e-10,
    -1.46707329184968e-10,
    -3.8122691049870754e-11,
    -1.1560071729126774e-10,
    -2.712722387665652e-11,
    -2.2662803389102062e-11,
    1.360627127230728e-11,
    1.0521252093966333e-11,
    1.3804531511927612e-11,
    5.6530328682213185e-12,
    2.6308780216416248e-12,
    -1.2687318202580822e-12,
    -1.7858671770633945e-12,
    -1.946845928771481e-12,
    -1.0839302852174569e-12,
    -4.803192699624686e-13,
    6.426845861317369e-14,
    2.538010716496655e-13,
    2.973106227211172e-13,
    2.0704248457716065e-13,
    1.0818088147912145e-13,
    1.976167804463245e-14,
    -2.7009079532819638e-14,
    -4.4207753637265785e-14,
)


def _clenshaw(coefficients: tuple[float, ...], t: Tensor) -> Tensor:
    """The Chebyshev series of `coefficients` on [0, 1] at t."""
    x2 = 4 * t - 2
    b1 = b2 = torch.zeros_like(t)
    for c in reversed(coefficients[1:]):
        b1, b2 = torch.addcmul(c - b2, x2, b1), b1
    return torch.addcmul(coefficients[0] - b2, 0.5 * x2, b1)


_RESIDUAL_SLOPE = tuple(chebder(_RESIDUAL, scl=2).tolist())
"""The coefficients of the derivative; the factor 2 is due to t in [0, 1], where Chebyshev polynomials have [-1, 1]."""


class _LogSquareResidual(torch.autograd.Function):
    """h(t), with its own backward pass, which keeps only t instead of every term of the series."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return _clenshaw(_terms(_RESIDUAL, t), t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return grad_outputs[0] * _clenshaw(_terms(_RESIDUAL_SLOPE, t), t)


def _terms(series: tuple[float, ...], t: Tensor) -> tuple[float, ...]:
    return series if t.dtype == torch.float64 else series[:_FLOAT32_TERMS]


def expected_log_square(mean: Tensor, variance: Tensor) -> Tensor:
    """E[log v^2] in nats for v ~ N(mean, variance), elementwise.

    The absolute error is below 1e-12 in float64 and 1e-5 in float32, for |mean| <= 20 and variance in [1e-4, 1e3].
    """
    squared = mean.square()
    t = squared / (squared + 4 * variance)
    return (squared + variance / (2 * math.exp(_EULER_GAMMA))).log() + _LogSquareResidual.apply(t)
