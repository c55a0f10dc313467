"""Builds encoders and decoders, one file a family. Knows no latents, no losses and no data.

An encoder maps images [B, C, H, W] to features [B, F]; a decoder maps codes [N, F] to [N, outputs, D], D = C*H*W.
Both are ordinary `nn.Module`s for one member: the cohort stacks them. New files are registered automatically.
"""

from typing import Annotated

from pydantic import SerializeAsAny

from trainables.components import chosen_from
from trainables.models.base import DECODERS, ENCODERS, Decoder, Encoder
from trainables.registry import import_submodules

import_submodules(__name__, __path__)

EncoderField = Annotated[SerializeAsAny[Encoder], chosen_from(ENCODERS)]
DecoderField = Annotated[SerializeAsAny[Decoder], chosen_from(DECODERS)]

__all__ = ["DECODERS", "ENCODERS", "Decoder", "DecoderField", "Encoder", "EncoderField"]
