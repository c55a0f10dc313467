"""Whether there is a cluster at an address: Ray itself tries for minutes, and then ends the process."""

import socket

from ray._private import services
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  # of a compiled module
from ray.exceptions import AuthenticationError, RpcError

from sweeps.errors import UserError, first_line

_ANSWER_S = 5.0


def answering(address: str) -> str:
    """Host and port of the head of the cluster at an address, which answers and admits us.

    Args:
        address: as Ray has it: host:port, or auto for the cluster that this machine is part of.

    Raises:
        UserError: there is none, it does not answer, or our token is not its.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address!r}: sweeps cannot run through Ray's client; run on the cluster's head, with "
            "--address auto, for example by ray submit (docs/cluster.md)"
        )
    try:
        place = services.canonicalize_bootstrap_address_or_die(address)
        host, _, port = place.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S):
            pass
        GcsClient(address=place)
    except AuthenticationError:
        raise UserError(
            f"--address {address!r}: the cluster does not know our token; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH where ~/.ray/auth_token is not the file that it was started with"
        ) from None
    except (OSError, OverflowError, ValueError, RpcError) as error:
        raise UserError(f"no Ray cluster at --address {address!r}: {first_line(error)}") from None
    return place
