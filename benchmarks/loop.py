"""Compares an epoch of one member with the ordinary training loop: DataLoader, ToTensor, `torch.optim`.

    python benchmarks/loop.py --data-dir data --json loop.json

The model is the 4x8 categorical VAE of Decoupled ST-GS (784-512-256, batch 100, RAdam), on MNIST, or on random images
of its size if MNIST is missing. The ordinary loop decodes each image from PIL in `--workers` processes. Ours is a
cohort of one member, as a sweep trains it, in float32 and in bf16. Neither loop evaluates. Takes one to two minutes on
two cores.

Prints for each loop: seconds an epoch, and how many times as fast as the ordinary one (epochs take turns; median). The
aim is 3 times in float32 and 5 times in bf16.
"""

import statistics
from pathlib import Path

import numpy as np
import torch
from measuring import begin, parser, seconds, write
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from trainables.config import TrainingConfig
from trainables.data import DataError, Images, load
from trainables.packing.cohort import Cohort

BATCH = 100
PRECISIONS = ("float32", "bf16")


class Pictures(Dataset[Tensor]):
    """Images as torchvision's data sets return them: from PIL, transformed one by one."""

    def __init__(self, images: np.ndarray):
        self._images, self._transform = images[:, 0], ToTensor()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._transform(Image.fromarray(self._images[index]))


class VAE(nn.Module):
    """The model in plain PyTorch: straight-through Gumbel-Softmax, Bernoulli pixels."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 32)
        )
        self.decoder = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 784))

    def loss(self, x: Tensor) -> Tensor:
        """The negative ELBO in nats per image."""
        logits = self.encoder(x).unflatten(-1, (4, 8))
        z = F.gumbel_softmax(logits, hard=True)
        pixels = F.binary_cross_entropy_with_logits(self.decoder(z.flatten(1)), x.flatten(1), reduction="none")
        q = torch.distributions.Categorical(logits=logits)
        uniform = torch.distributions.Categorical(logits=torch.zeros_like(logits))
        return pixels.sum(-1).mean() + torch.distributions.kl_divergence(q, uniform).sum(-1).mean()


class OrdinaryLoop:
    """One training as PyTorch's tutorials write it."""

    def __init__(self, images: np.ndarray, workers: int, device: torch.device):
        self.loader = DataLoader(
            Pictures(images), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.model = VAE().to(device)
        self.optimizer = torch.optim.RAdam(self.model.parameters(), lr=1e-3)
        self.device = device

    def epoch(self) -> None:
        for x in self.loader:
            loss = self.model.loss(x.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def member(images: np.ndarray, precision: str, device: torch.device, compiled: bool | None) -> Cohort:
    """The same training as a cohort of one."""
    config = TrainingConfig.model_validate(
        {
            "data": {"name": "mnist", "pixels": "unit"},
            "latent": {"family": "categorical", "size": 4, "categories": 8},
            "encoder": {"name": "mlp", "hidden": [512, 256]},
            "decoder": {"name": "mlp", "hidden": [256, 512]},
            "likelihood": {"name": "bernoulli"},
            "estimator": {"name": "st_gumbel_softmax"},
            "optim": {"name": "radam", "lr": 1e-3},
            "precision": precision,
            "epochs": 160,
            "batch_size": BATCH,
        }
    )
    return Cohort([config], Images(train=images, validation=images[:1]), device=device, compiled=compiled)


def pictures(data_dir: Path, count: int) -> tuple[str, np.ndarray]:
    """The name of the images and the images: of MNIST if it is there, else random."""
    try:
        return "mnist", load("mnist", data_dir).train[:count]
    except DataError:
        return "random", np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)


def main() -> None:
    """Measures, prints and writes."""
    arguments = parser(__doc__)
    arguments.add_argument("--data-dir", type=Path, default=Path("data"))
    arguments.add_argument("--images", type=int, default=55_000)
    arguments.add_argument("--epochs", type=int, default=3, help="timed of each loop, after one that is not timed")
    arguments.add_argument("--workers", type=int, default=2, help="processes of the ordinary loop's DataLoader")
    arguments.add_argument("--eager", action="store_true", help="do not compile our step")
    args = arguments.parse_args()
    source, images = pictures(args.data_dir, args.images)
    device, report = begin(args, data=source, images=len(images), workers=args.workers)
    compiled = False if args.eager else None
    epochs = {"ordinary": OrdinaryLoop(images, args.workers, device).epoch}
    epochs |= {precision: member(images, precision, device, compiled).train_epoch for precision in PRECISIONS}
    for epoch in epochs.values():
        epoch()
    times = [{name: seconds(epoch, device) for name, epoch in epochs.items()} for _ in range(args.epochs)]
    for name in epochs:
        took = min(one[name] for one in times)
        ratio = statistics.median(one["ordinary"] / one[name] for one in times)
        print(f"{name:<9} {took:8.2f} s an epoch (shortest)   {ratio:5.2f} x as fast (median)", flush=True)
        report["rows"].append({"loop": name, "epoch_s": took, "ratio": ratio})
    write(args.json, report)


if __name__ == "__main__":
    main()
