"""Feeds random and hostile input to commands and readers, in one process: python -m tests.fuzz --count 10000 --seed 0

Inputs are settings and options of commands, files of a storage, files of data sets, and checkpoints and saved models.
Each must be accepted, or refused in one line with exit code 2 or the reader's own error. Counted are: tracebacks,
writes outside the folder that the input may write to, and processes that were started. One seed gives the same inputs.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import random
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sweeps.cli import run_app, single
from sweeps.planning import saved
from sweeps.planning.plan import Overrides
from sweeps.planning.search import CellSearch
from sweeps.records import ledger as ledgers
from sweeps.records import parquet
from sweeps.records.ledger import Ledger, Row, now
from sweeps.records.storage import Storage
from sweeps.records.tables import RESULTS
from sweeps.run import run
from sweeps.status import status
from trainables.checkpoint import read_checkpoint, read_header
from trainables.config import TrainingConfig
from trainables.data import DATASETS, DataError
from trainables.trained import TrainedVAE
from trainables.training import train

STARTS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen")
WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
PYTORCH = os.path.join(tempfile.gettempdir(), "torchinductor_")
"""PyTorch's own cache: it makes the folder when it is first asked for the shapes of a large network."""
SMALL = {
    "latent": {"family": "categorical", "size": 2, "categories": 2},
    "encoder": {"name": "mlp", "hidden": [4]},
    "decoder": {"name": "mlp", "hidden": [4]},
    "likelihood": {"name": "bernoulli"},
    "data": {"name": "digits", "pixels": "unit", "limit": 8},
    "estimator": {"name": "decoupled_st_gs"},
    "optim": {"name": "adam"},
    "epochs": 1,
    "batch_size": 8,
}
FIELDS = ("epochs", "batch_size", "seed", "precision", "optim.lr", "optim.name", "optim.beta2", "estimator.name")
FIELDS += ("estimator.temperature_forward", "latent.size", "latent.categories", "encoder.hidden", "decoder.name")
FIELDS += ("data.name", "data.limit", "guide", "guide.freeze_epoch", "diagnostics", "objective.kl_weight", "likelihood")
HOSTILE = (
    "__import__('os').system('touch pwned')",
    "$(touch pwned)",
    "{{ 1 }}",
    "../../pwned",
    "/etc/passwd",
    "\udcff",
)
HOSTILE += (
    "-",
    "nan",
    "1e999",
    "5e-324",
    "1e300",
    "9" * 5000,
    "[" * 5000,
    "\0",
    "npz:../pwned",
    "folder:/dev",
    "\x1b[2J",
)
REFUSALS = (DataError, ValueError, FileNotFoundError)
"""What readers of Python's side raise for files that they refuse: their docstrings promise it."""


@dataclass
class Watch:
    """Counts what an input may not do, by Python's audit events.

    Files that pyarrow writes raise no event; `Fuzz` compares the folder around the storage before and after.
    """

    allowed: Path = Path("/nowhere")
    on: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in STARTS:
            self.seen.append(f"process: {event} {arguments[:2]!r}"[:200])
        elif (event == "open" and _writes(arguments)) or event in WRITES:
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                where = os.path.realpath(os.fsdecode(path))
                if where != "/dev/null" and not where.startswith((f"{self.allowed}/", PYTORCH)):
                    self.seen.append(f"write: {event} {where}"[:200])


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Fuzz:
    """Makes inputs and tries them, one after another, below a folder."""

    def __init__(self, folder: Path, seed: int):
        self.random = random.Random(seed)
        self.folder = folder.resolve()
        self.home = self.folder / "allowed"
        self.home.mkdir()
        self.watch = Watch(self.home)
        sys.addaudithook(self.watch)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.storage = Storage(str(self.home / "runs"), "quickstart")
        self.storage.prepare()
        saved.save_plan(self.storage, Overrides())
        self.plan = saved.last_plan(self.storage)
        config = TrainingConfig.model_validate(SMALL)
        self.configs = [config]
        (result,) = train(self.configs, data_dir=self.home)
        self.checkpoint = self._checkpoint()
        vae = TrainedVAE.from_checkpoint(self.checkpoint, config, (1, 8, 8))
        self.model = self.home / "model"
        self.model.mkdir()
        vae.save(self.model)
        self.model_files = {path.name: path.read_bytes() for path in self.model.iterdir()}
        assert result.status == "finished"

    def _checkpoint(self) -> bytes:
        from trainables.training import CohortTraining, resolve_device

        training = CohortTraining(self.configs, device=resolve_device("cpu"), data_dir=self.home)
        list(training)
        return training.checkpoint()

    def run(self, count: int) -> None:
        """Tries `count` inputs of all kinds, equally often."""
        kinds = {"settings": self.settings, "storage": self.stored, "data": self.data, "models": self.models}
        os.chdir(self.home)
        for index in range(count):
            kind = list(kinds)[index % len(kinds)]
            what: list[str] = []
            try:
                self.counts[f"{kind} {kinds[kind](what)}"] += 1
            except BaseException as error:  # whatever a user would see as a traceback
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.watch.on = False
                where = traceback.extract_tb(error.__traceback__)[-1]
                self._fail(
                    f"traceback: {kind} {what}: {type(error).__name__}: {error} at {where.filename}:{where.lineno}"
                )
            for each in self.watch.seen:
                self._fail(f"{each}: {kind} {what}")
            self.watch.seen.clear()
            if sorted(path.name for path in self.folder.iterdir()) != ["allowed"]:
                self._fail(f"write: beside the folder: {kind} {what}")

    def _fail(self, text: str) -> None:
        self.counts[text.partition(":")[0]] += 1
        self.failures.append(text[:600].encode(errors="replace").decode())
        print(self.failures[-1], flush=True)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self.watch.on = True
        try:
            yield
        finally:
            self.watch.on = False

    # --- settings ----------------------------------------------------------------------------------------------------

    def settings(self, what: list[str]) -> str:
        """A command line with --plan."""
        words = ["quickstart", "--plan", "--storage", str(self.home / "none"), "--data-dir", str(self.home)]
        for _ in range(self.random.randint(1, 3)):
            words += self._option()
        what += words
        return self.command(run, words)

    def _option(self) -> list[str]:
        pick = self.random.random()
        if pick < 0.7:
            name = self.random.choice(FIELDS) if self.random.random() < 0.9 else self._text()
            return ["--set", f"{name}={self._value()}"]
        option = self.random.choice(
            ["--seeds", "--only", "--scale", "--search", "--budget", "--stand-in", "--pack", "--precision", "--keep"]
        )
        values = [
            "1",
            "2",
            "0",
            "-1",
            "1000000000",
            "9" * 30,
            "search",
            "t*",
            "tpe",
            "smoke",
            "digits=npz:x",
            self._text(),
        ]
        return [option, self.random.choice(values)]

    def _value(self) -> str:
        pick = self.random.random()
        if pick < 0.3:
            return self._text()
        if pick < 0.6:
            return str(
                self.random.choice([0, 1, 2, 8, -1, 1e-3, 0.5, 2**31, 2**63, 1e-40, 1e39, 10**25, "true", "null"])
            )
        return json.dumps(self._json(3))

    def _json(self, depth: int) -> Any:
        pick = self.random.randint(0, 7 if depth else 4)
        if pick < 5:
            choices = (
                None,
                True,
                self.random.randint(-3, 10**6),
                self.random.uniform(-1, 1) * 10.0 ** self.random.randint(-330, 308),
                self._text(),
            )
            return choices[pick]
        if pick < 7:
            return [self._json(depth - 1) for _ in range(self.random.randint(0, 3))]
        names = ("name", "family", "hidden", "size", "values", "suggestions", "optim.lr", "x")
        return {self.random.choice(names): self._json(depth - 1) for _ in range(self.random.randint(0, 3))}

    def _text(self) -> str:
        if self.random.random() < 0.6:
            return self.random.choice(HOSTILE).replace("\0", "")
        alphabet = "abcz019.:/=*?[]{}\"'\\ %$#@!~-_\n\t\u20ac\u202e"
        return "".join(self.random.choice(alphabet) for _ in range(self.random.randint(0, 12)))

    def command(self, function: Callable[..., Any], words: list[str]) -> str:
        """Runs a command; fails unless it succeeds, or prints one line and ends with exit code 2."""
        out, err, before = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["command", *words]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), self._watched():
                try:
                    run_app(single(function), "command")
                except SystemExit as stop:
                    code = stop.code
        finally:
            sys.argv = before
        lines = err.getvalue().count("\n")
        assert code in (0, 2), f"exit code {code}"
        assert code == 0 or lines == 1, f"{lines} lines: {err.getvalue()[:300]!r}"
        return "accepted" if code == 0 else "refused"

    # --- files of a storage ------------------------------------------------------------------------------------------

    def stored(self, what: list[str]) -> str:
        """A file of a storage that was made up or damaged; then `status` and `--plan` read it."""
        path, content = self._file()
        what += [path, repr(content[:120])]
        target = self.storage.local_path / path
        kept = target.read_bytes() if target.exists() else None
        self.storage.write(path, content)
        try:
            outcome = self.command(status, ["quickstart", "--storage", str(self.home / "runs"), "--json"])
            if path.startswith(("ledger", "results", "suggestions")):
                self._driver_reads()
        finally:
            target.unlink(missing_ok=True)
            if kept is not None:
                self.storage.write(path, kept)
        return outcome

    def _driver_reads(self) -> None:
        """Reads the ledger as a driver does, in a copy that may be changed."""
        from sweeps.errors import UserError
        from sweeps.records.tables import known_run_ids

        with self._watched(), contextlib.suppress(UserError):
            ledger = Ledger(self.storage)
            for row in ledger.read().values():
                dict(row.config), dict(row.history)
            known_run_ids(self.storage)
        for path in self.storage.local_path.glob("**/set_aside/*"):
            path.unlink()

    def _file(self) -> tuple[str, bytes]:
        kind = self.random.choice(
            ["plan", "ledger", "forged", "suggestions", "cohorts", "sessions", "lock", "progress", "results"]
        )
        content = self._content()
        if kind == "ledger":
            return "ledger/x.parquet", content
        if kind == "forged":
            return self._forged()
        if kind == "results":
            return RESULTS, content
        if kind == "suggestions":
            study = next(study for study in self.plan.studies if study.search)
            folder = CellSearch(self.plan, self.plan.cells(study)[0], Ledger(self.storage))._folder
            return f"suggestions/{folder}/0000{self.random.randint(0, 1)}.json", content
        names = {"cohorts": "cohorts/c.json", "sessions": "sessions/20260101T000000000000.json"}
        return names.get(kind, f"{kind}.json"), content

    def _content(self) -> bytes:
        pick = self.random.random()
        if pick < 0.2:
            return self.random.randbytes(self.random.randint(0, 60))
        if pick < 0.3:
            return self._text().encode(errors="surrogateescape")
        if pick < 0.35:
            return self.random.choice([b"[", b'{"a":', b'{"suggestions": [']) * 100_000
        if pick < 0.5:
            return json.dumps({"suggestions": [self._json(2)], "values": self._json(2)}).encode(errors="replace")
        if pick < 0.7:
            names = (
                "only",
                "values",
                "seeds",
                "scale",
                "search",
                "started",
                "overrides",
                "environment",
                "host",
                "pid",
                "since",
            )
            return json.dumps({name: self._json(2) for name in self.random.sample(names, 4)}).encode(errors="replace")
        return json.dumps(self._json(4)).encode(errors="replace")

    def _forged(self) -> tuple[str, bytes]:
        """A ledger file with the right name for its content, and any values."""
        member = self.random.choice(self.plan.expected(self.plan.studies[0]))
        values = vars(
            Row(
                key=member.key,
                status="finished",
                epochs=1,
                wall_s=1.0,
                ended=now(),
                config={},
                metrics={"elbo": 1.0},
                history={},
            )
        )
        values |= {"config": "{}", "history": {"elbo": [1.0]}}
        strange: dict[str, list[Any]] = {
            "key": [None, "", "x"], "status": [None, "stopped", "gone"], "reason": ["lost", "x"], "detail": ["\x1b[2J"],
            "epochs": [None, -1, 2**31 - 1], "wall_s": [None, float("nan"), float("inf"), -1.0, 1e308],
            "config": [None, "[", "[" * 100_000, "3", "null"],
            "metrics": [None, {}, {"elbo": None}, {"elbo": float("nan")}],
            "history": [None, {"elbo": None}, {"elbo": [None]}, {"elbo": [], "kl": [1.0]}],
        }  # fmt: skip
        for name in self.random.sample(sorted(strange), self.random.randint(1, 3)):
            values[name] = self.random.choice(strange[name])
        columns = {name: [values[name]] for name in ledgers._SCHEMA.names}
        if self.random.random() < 0.4:
            ended = self.random.choice([None, 0, 2**62, -(2**62), 2**52, self.random.randint(-(2**63), 2**63 - 1)])
            columns["ended"] = pa.array([ended], pa.int64()).cast(pa.timestamp("us", "UTC"))
        content = parquet.encoded(pa.table(columns, schema=ledgers._SCHEMA))
        if self.random.random() < 0.3:
            content = self._mutated(content)
        return f"ledger/{hashlib.sha256(content).hexdigest()[:32]}.parquet", content

    def _mutated(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(changed) + 1)
            changed[at : at + self.random.randint(0, 4)] = self.random.randbytes(self.random.randint(0, 4))
        return bytes(changed)

    # --- files of data sets ------------------------------------------------------------------------------------------

    def data(self, what: list[str]) -> str:
        """An archive, an image in a folder, or a file of the image store, damaged or made up."""
        kind = self.random.choice(["npz", "folder", "store"])
        place = Path(tempfile.mkdtemp(dir=self.home))
        name = f"{kind}:own" if kind == "folder" else "npz:own.npz"
        try:
            if kind == "folder":
                what.append(self._folder(place / "own"))
            else:
                (place / "own.npz").write_bytes(self._archive(damaged=kind == "npz"))
            if kind == "store":
                return self._store(place, name, what)
            what += [name]
            with self._watched():
                images = DATASETS[name](place)
            assert images.train.dtype == np.uint8
        except DataError as error:
            return _refused(error)
        finally:
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            place.rmdir()
        return "accepted"

    def _store(self, place: Path, name: str, what: list[str]) -> str:
        whole = DATASETS[name](place).train.copy()
        (file,) = (place / "arrow").glob("*.arrow")
        content = self._mutated(file.read_bytes())
        what += [name, "store"]
        file.unlink()  # another file, since the old one is mapped
        file.write_bytes(content)
        with self._watched():
            images = DATASETS[name](place).train
        assert np.array_equal(images, whole), "other images"
        return "accepted"

    def _archive(self, *, damaged: bool) -> bytes:
        stream = io.BytesIO()
        images = np.frombuffer(self.random.randbytes(12 * 16), np.uint8).reshape(12, 4, 4)
        if damaged and self.random.random() < 0.4:
            shape = tuple(self.random.choice([-1, 0, 1, 4, 2**40]) for _ in range(self.random.randint(0, 5)))
            descr = self.random.choice(["|u1", "|O", "<f8", "|V0", "x"])
            header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
            text = (
                self.random.choice([header, self._text(), "(" * 200]).encode(errors="replace").ljust(117)[:60_000]
                + b"\n"
            )
            member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + self.random.randbytes(40)
            with zipfile.ZipFile(stream, "w", self.random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
                file.writestr("train_images.npy", member)
            return stream.getvalue()
        self.random.choice([np.savez, np.savez_compressed])(stream, train_images=images)
        return self._mutated(stream.getvalue()) if damaged else stream.getvalue()

    def _folder(self, folder: Path) -> str:
        folder.mkdir()
        kind = self.random.choice(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
        pixels = np.frombuffer(self.random.randbytes(48), np.uint8).reshape(4, 4, 3)
        for number in range(3):
            Image.fromarray(pixels).save(folder / f"{number}.{kind}")
        path = folder / f"1.{kind}"
        pick = self.random.random()
        if pick < 0.7:
            path.write_bytes(self._mutated(path.read_bytes()))
            return f"damaged {kind}"
        if pick < 0.8:
            path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
            return "postscript"
        path.unlink()
        if pick < 0.9:
            os.mkfifo(path)
            return "pipe"
        path.symlink_to(self.random.choice(["/dev/zero", "/etc/passwd", "nowhere", "/dev/stdin"]))
        return "link"

    # --- checkpoints and saved models --------------------------------------------------------------------------------

    def models(self, what: list[str]) -> str:
        """A checkpoint or a saved model, damaged or made up."""
        from trainables.diagnose import diagnose

        kind = self.random.choice(["checkpoint", "header", "weights.safetensors", "config.json"])
        what.append(kind)
        try:
            if kind in self.model_files:
                for name, whole in self.model_files.items():
                    (self.model / name).write_bytes(whole)
                (self.model / kind).write_bytes(self._damaged(self.model_files[kind], what))
                with self._watched():
                    TrainedVAE.load(self.model).sample(2)
                return "accepted"
            content = self._damaged(self.checkpoint, what)
            with self._watched():
                if kind == "header":
                    read_header(lambda size: content[:size])
                else:
                    read_checkpoint(content)
                    diagnose(self.configs, content, ["iw_bound"], data_dir=self.home, draws=2)
        except REFUSALS as error:
            return _refused(error)
        return "accepted"

    def _damaged(self, content: bytes, what: list[str]) -> bytes:
        pick = self.random.random()
        if pick < 0.2:
            header = self._content()
            made = len(header).to_bytes(8, "little") + header
            what.append(repr(made[:80]))
            return made
        if pick < 0.4 and content[:1] == b"{":
            table = json.loads(content)
            part = self.random.choice([table, table["config"], table["config"]["latent"], table["config"]["encoder"]])
            part[self.random.choice(sorted(part))] = self._json(2)
            what.append(json.dumps(part)[:200])
            return json.dumps(table).encode(errors="replace")
        if pick < 0.45:
            return content[: self.random.randrange(len(content))]
        return self._mutated(content)


def _refused(error: Exception) -> str:
    """The outcome of a refusal, whose message must be one line."""
    if "\n" in str(error):
        raise AssertionError("more than one line") from error
    return "refused"


def fuzz(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Tries inputs in a temporary folder; returns how many were accepted and refused, by kind, and the failures."""
    before = Path.cwd()
    logging.disable(logging.WARNING)  # damaged files are told; here they are the rule
    with tempfile.TemporaryDirectory() as folder:
        trial = Fuzz(Path(folder), seed)
        try:
            trial.run(count)
        finally:
            os.chdir(before)
            logging.disable(logging.NOTSET)
    return trial.counts, trial.failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, busy = time.monotonic(), time.process_time()
    counts, failures = fuzz(options.count, options.seed)
    found = f"{counts['traceback']} tracebacks, {counts['write']} writes outside, {counts['process']} processes started"
    took = f"{time.process_time() - busy:.0f} s of processor time, {time.monotonic() - started:.0f} s in all"
    print(f"{options.count:,} inputs, seed {options.seed}: {found}; {took}")
    for kind, count in sorted(counts.items()):
        print(f"  {kind}: {count:,}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
