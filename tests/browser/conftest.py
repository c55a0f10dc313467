"""Fixtures: a browser, a finished sweep and MLflow's user interface."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, controlled by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox needs rights that containers lack; only our own pages are opened.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A new wide page; a wait of more than a minute fails the test."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Path:
    """A storage with a finished quickstart of three epochs instead of sixty."""
    storage = tmp_path_factory.mktemp("browser") / "runs"
    command = [sys.executable, "-m", "sweeps.run", "quickstart", "--set", "epochs=3", "--storage", str(storage)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return storage


@pytest.fixture(scope="session")
def mlflow_ui(quickstart) -> Iterator[str]:
    """The address of MLflow's user interface for this storage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sweeps.ui", "--storage", str(quickstart), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            assert server.stdout is not None
            assert server.stdout.readline() == f"MLflow on {address} (Ctrl-C ends it)\n"  # printed when it answers
            yield address
        finally:
            server.terminate()
