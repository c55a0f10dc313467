"""An epoch of one member against the loop that everybody writes: DataLoader, ToTensor, an optimizer of PyTorch's.

    python benchmarks/loop.py --data-dir data --json loop.json

The 4x8 categorical VAE of Decoupled ST-GS (784-512-256, batch 100, RAdam) on MNIST, or on random images of its size
where there is no MNIST. The ordinary loop decodes each image from PIL with torchvision's ToTensor, in `--workers`
processes, and takes its steps with `nn.Module` and `torch.optim`; ours is the cohort of one member that a sweep trains.
Epochs take turns; neither has an evaluation. What is aimed at: 3 times in float32, 5 times in bf16. See
benchmarks/README.md.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from measuring import Report, machine, seconds, show, write
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
    """Images as torchvision's data sets give them: a PIL image, transformed."""

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
    """One training as PyTorch's tutorials have it."""

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
    """Training images of MNIST, or random ones, and which."""
    try:
        return "mnist", load("mnist", data_dir).train[:count]
    except DataError:
        return "random", np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)


def main() -> None:
    """Measures, prints, and writes what it was asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=55_000)
    parser.add_argument("--epochs", type=int, default=3, help="timed of each kind, after one that is not")
    parser.add_argument("--workers", type=int, default=2, help="processes of the ordinary loop's DataLoader")
    parser.add_argument("--eager", action="store_true", help="do not compile our step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and rows there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    source, images = pictures(args.data_dir, args.images)
    about = machine(device) | {"data": source, "images": len(images), "workers": args.workers}
    show(about)
    compiled = False if args.eager else None
    ordinary = OrdinaryLoop(images, args.workers, device)
    epochs = {"ordinary": ordinary.epoch}
    epochs |= {precision: member(images, precision, device, compiled).train_epoch for precision in PRECISIONS}
    for epoch in epochs.values():
        epoch()
    times = [{name: seconds(epoch, device) for name, epoch in epochs.items()} for _ in range(args.epochs)]
    report: Report = {"machine": about, "rows": []}
    for name in epochs:
        took = min(one[name] for one in times)
        ratio = statistics.median(one["ordinary"] / one[name] for one in times)
        print(f"{name:<9} {took:8.2f} s an epoch (shortest)   {ratio:5.2f} x as fast (median)", flush=True)
        report["rows"].append({"loop": name, "epoch_s": took, "ratio": ratio})
    write(args.json, report)


if __name__ == "__main__":
    main()
