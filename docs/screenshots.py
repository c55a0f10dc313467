"""Makes docs/images/report.png and docs/images/mlflow.png from a finished quickstart.

    python docs/screenshots.py [--storage ./runs]

Needs Chromium (on Debian: apt-get install chromium) and the test dependencies.
"""

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Makes both images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="where quickstart was run")
    storage = parser.parse_args().storage
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no Chromium is installed; on Debian: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        report(browser, storage)
        with served(storage) as address:
            mlflow(browser, address)
        browser.close()


def report(browser: Browser, storage: Path) -> None:
    """Takes the report's section on temperatures, with its heatmap."""
    page = browser.new_page(viewport={"width": 1200, "height": 1300})
    page.goto((storage / "quickstart" / "report" / "index.html").absolute().as_uri() + "#temperatures")
    page.screenshot(path=IMAGES / "report.png")
    shrink(IMAGES / "report.png")


def mlflow(browser: Browser, address: str) -> None:
    """Takes MLflow's table of runs, grouped by study."""
    experiment = MlflowClient(address).get_experiment_by_name("quickstart")
    assert experiment is not None, "quickstart has no runs in MLflow"
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(f"{address}/#/experiments/{experiment.experiment_id}/runs")
    page.get_by_role("link", name="temperatures", exact=False).first.wait_for(timeout=120_000)
    page.wait_for_timeout(3000)  # its charts are drawn in steps, and nothing tells when they are complete
    page.screenshot(path=IMAGES / "mlflow.png")
    shrink(IMAGES / "mlflow.png")


def shrink(path: Path) -> None:
    """Reduces a screenshot to less than 300 kB: 128 colours are enough for a user interface."""
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    assert path.stat().st_size < 300_000, f"{path} has {path.stat().st_size} bytes"


@contextlib.contextmanager
def served(storage: Path) -> Iterator[str]:
    """Serves MLflow's user interface for a storage; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sweeps.ui", "--storage", str(storage), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            if server.stdout is None or not server.stdout.readline():  # a line is printed when it answers
                raise SystemExit("MLflow does not answer; python -m sweeps.ui says why")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
