"""Simulates machines by Linux namespaces, each with its own address, processes, /tmp and home.

`ray up` uses whole machines: it ends every Ray process, installs packages and edits ~/.bashrc. Namespaces keep this,
and open ports, from the rest of the host. A bridge connects the machines, and they share one folder like an NFS mount.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
SHARED, HOME = Path("/mnt"), Path("/srv")
GATEWAY = "192.0.2.1"
_TOOLS = ("setpriv", "unshare", "nsenter", "ip", "ssh", "ssh-keygen", "/usr/sbin/sshd", "rsync")
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")

_START = """
set -e
hostname {name}
echo "127.0.0.1 localhost
{address} {name}" > {folder}/hosts
mount --bind {folder}/hosts /etc/hosts
mount --bind {shared} {SHARED}
mount --bind {home} {HOME}
sed 's#:/root:#:{HOME}:#' /etc/passwd > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs layer {folder}/layer
cd {folder}/layer
mkdir upper work venv
mount -t overlay overlay -o lowerdir={VENV},upperdir=$PWD/upper,workdir=$PWD/work venv
test {checkout} = yes || mount -t tmpfs hidden {ROOT}
mkdir -p {VENV}
mount --move venv {VENV}
mount -t tmpfs run /run
mkdir /run/sshd /run/lab
mount --bind {folder} /run/lab
mount -t tmpfs tmp /tmp
mount -t tmpfs shm /dev/shm
cd {HOME}
exec {process}
"""
_SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
StrictModes no
UseDNS no
PidFile none
MaxStartups 50
SetEnv PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0
"""


def missing() -> str | None:
    """Why no machine can be made here; None if it can."""
    if ROOT.is_relative_to("/tmp"):
        return f"the checkout {ROOT} lies below /tmp, and every machine has a /tmp of its own; use a checkout elsewhere"
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: util-linux, iproute2, openssh-server, rsync)"
    probe = subprocess.run(["unshare", *_NAMESPACES, "--fork", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "needs the right to make namespaces (root, or CAP_SYS_ADMIN)"


def until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    """Waits until a condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@dataclass(frozen=True)
class Machine:
    """A running machine. `home` and `shared` are folders of the host."""

    name: str
    address: str
    home: Path
    pid: int

    def command(self, line: str, environment: Mapping[str, str] = {}) -> list[str]:
        """The host's command that runs a line of bash on the machine with a user's environment."""
        variables = {"HOME": str(HOME), "PATH": f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin", "TERM": "dumb"}
        words = [f"{name}={value}" for name, value in (variables | dict(environment)).items()]
        enter = ["nsenter", "--target", str(self.pid), *_NAMESPACES]
        return [*enter, "env", "--ignore-environment", *words, "bash", "-c", line]

    def cut(self) -> None:
        """Ends the machine and all its processes at once."""
        os.kill(self.pid, signal.SIGKILL)

    def run(
        self, line: str, environment: Mapping[str, str] = {}, timeout_s: float = 500
    ) -> subprocess.CompletedProcess[str]:
        """Runs a line of bash; `stdout` has output and errors."""
        return subprocess.run(
            self.command(line, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )


class Lab:
    """A laptop with the checkout, and further machines. Packages installed on a machine disappear with it.

    Args:
        folder: the host's folder for the machines' files.
        shared: the folder that all machines see at SHARED.
    """

    def __init__(self, folder: Path, shared: Path):
        self._folder, self.shared = folder, shared
        self._stack = ExitStack()

    def __enter__(self) -> "Lab":
        self.laptop = self._stack.enter_context(_machine(self._folder, "laptop", GATEWAY, self.shared, checkout=True))
        key = self.laptop.home / ".ssh" / "id_ed25519"
        key.parent.mkdir()
        _keygen(key)
        _wire(self.laptop, "ip link add br0 type bridge && ip link set br0 up && ip link set lo up")
        _wire(self.laptop, f"ip address add {GATEWAY}/24 dev br0 && ip route add default via {GATEWAY}")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def machine(self, name: str, address: str, *, checkout: bool = False) -> Machine:
        """Starts a machine with sshd, which accepts the laptop's ~/.ssh/id_ed25519.

        Args:
            checkout: whether the machine has the checkout; else it has the installed packages only.
        """
        public = (self.laptop.home / ".ssh" / "id_ed25519.pub").read_text()
        node = self._stack.enter_context(
            _machine(self._folder, name, address, self.shared, checkout=checkout, authorized=public)
        )
        _wire(self.laptop, f"ip link add {name} type veth peer name eth0 netns {node.pid}")
        _wire(self.laptop, f"ip link set {name} master br0 up")
        _wire(node, f"ip link set lo up && ip address add {address}/24 dev eth0 && ip link set eth0 up")
        _wire(node, f"ip route add default via {GATEWAY}")
        return node

    def unplug(self, machine: Machine) -> None:
        """Cuts a machine off the network; its processes go on."""
        _wire(self.laptop, f"ip link set {machine.name} down")

    def plug(self, machine: Machine) -> None:
        """Ends `unplug`."""
        _wire(self.laptop, f"ip link set {machine.name} up")


@contextmanager
def _machine(
    folder: Path, name: str, address: str, shared: Path, *, checkout: bool, authorized: str | None = None
) -> Iterator[Machine]:
    folder, home = folder / name, folder / name / "home"
    home.mkdir(parents=True)
    (folder / "layer").mkdir()
    process = "sleep infinity"
    if authorized is not None:
        (folder / "authorized_keys").write_text(authorized)
        _keygen(folder / "host_key")
        (folder / "sshd_config").write_text(_SSHD.format(folder="/run/lab"))
        process = "/usr/sbin/sshd -D -f /run/lab/sshd_config"
    script = _START.format(
        name=name,
        address=address,
        folder=shlex.quote(str(folder)),
        shared=shlex.quote(str(shared)),
        home=shlex.quote(str(home)),
        checkout="yes" if checkout else "no",
        process=process,
        ROOT=ROOT,
        VENV=VENV,
        SHARED=SHARED,
        HOME=HOME,
    )
    with (folder / "log").open("w") as log:
        unshare = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            *_NAMESPACES,
            "--mount-proc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
        ]
        process_ = subprocess.Popen(unshare, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Machine(name, address, home, _first(process_, folder))
    finally:
        process_.kill()  # ends all processes of the machine
        process_.wait()


def _first(process: subprocess.Popen, folder: Path) -> int:
    """Waits until the machine is set up; returns the id of the process that keeps it running."""
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() in ("sshd", "sleep"):
                return int(child)
        time.sleep(0.05)
    process.kill()
    raise RuntimeError((folder / "log").read_text())


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _wire(machine: Machine, line: str) -> None:
    subprocess.run(["nsenter", "--target", str(machine.pid), "--net", "sh", "-c", line], check=True)
