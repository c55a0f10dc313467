"""A storage in a bucket: it is read from anywhere, and an unusable bucket is reported in one line before training."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"


@pytest.fixture(autouse=True)
def credentials(monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="sweeps")
    yield f"s3://sweeps/runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    server.stop()


class Refusing(http.server.BaseHTTPRequestHandler):
    """An S3 server that answers as to expired credentials."""

    def do_GET(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", str(len(EXPIRED)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(EXPIRED)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def expired() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"s3://sweeps/runs?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
    server.shutdown()
    server.server_close()


def call(module: str, *arguments: str, cwd) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", module, *arguments]
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=os.environ, timeout=250, check=False)


@pytest.mark.slow
def test_what_was_trained_far_away_is_read_at_home(bucket, tmp_path):
    small = ("quickstart", "--only", "estimators", "--set", "epochs=1")
    done = call("sweeps.run", *small, "--storage", bucket, "--tracking-uri", "sqlite:///mlflow.db", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    status = call("sweeps.status", "quickstart", "--storage", bucket, cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "complete" in status.stdout
    store, root = fs.FileSystem.from_uri(bucket)
    store.delete_file(f"{root}/quickstart/report/index.html")
    report = call("sweeps.report", "quickstart", "--storage", bucket, cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert store.get_file_info(f"{root}/quickstart/report/index.html").size > 1000
    with store.open_input_file(f"{root}/quickstart/results.parquet") as file:
        assert set(pd.read_parquet(file)["status"]) == {"finished"}


@pytest.mark.slow
def test_expired_credentials_are_told_before_anything_starts(expired, tmp_path):
    far = ("quickstart", "--storage", expired)
    runs = call("sweeps.run", *far, "--tracking-uri", "sqlite:///mlflow.db", cwd=tmp_path)
    status = call("sweeps.status", *far, cwd=tmp_path)
    for done in (runs, status):
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "credentials" in done.stderr
        assert "Starting Ray" not in done.stdout


def test_a_bucket_that_is_not_there_is_told_before_anything_starts(bucket, tmp_path):
    far = bucket.replace("s3://sweeps/", "s3://nobodys/")
    runs = call("sweeps.run", "quickstart", "--storage", far, "--tracking-uri", "sqlite:///mlflow.db", cwd=tmp_path)
    assert runs.returncode == 2
    assert len(runs.stderr.splitlines()) == 1
    assert "check that the bucket exists" in runs.stderr
    assert "Starting Ray" not in runs.stdout
