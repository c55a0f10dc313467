"""Turns a decoder's output into p(x|z), one file a family. Knows latents and their analytic moments.

    from trainables.likelihoods import LIKELIHOODS
    LIKELIHOODS["bernoulli"].log_prob(x, output, {})

`trainables.likelihoods.base` has the contract.
"""

from typing import Annotated

from pydantic import SerializeAsAny

from trainables.components import chosen_from
from trainables.likelihoods.base import LIKELIHOODS, Affine, Likelihood
from trainables.metrics import describe
from trainables.registry import import_submodules

import_submodules(__name__, __path__)
for _likelihood in LIKELIHOODS.values():
    describe(_likelihood.metrics)

LikelihoodField = Annotated[SerializeAsAny[Likelihood], chosen_from(LIKELIHOODS)]

__all__ = ["LIKELIHOODS", "Affine", "Likelihood", "LikelihoodField"]
