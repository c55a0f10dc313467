"""Checks that a cluster answers at an address. Ray itself would try for minutes and then end the process."""

import socket

from ray.exceptions import AuthenticationError, RpcError

from sweeps.errors import UserError, first_line
from sweeps.on_ray import private

_ANSWER_S = 5.0


def answering(address: str) -> str:
    """Host and port of the head of the cluster at an address, after it has answered and accepted our token.

    Args:
        address: host:port, or auto for the cluster of this machine.

    Raises:
        UserError: there is no cluster, it does not answer, or it does not accept our token; or the address is of Ray's
            client (ray://).
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address!r}: sweeps cannot run through Ray's client; run on the cluster's head with "
            "--address auto, for example with ray submit (docs/cluster.md)"
        )
    try:
        place = private.head_of(address)
        host, _, port = place.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S):
            pass
        private.admitted(place)
    except AuthenticationError:
        raise UserError(
            f"--address {address!r}: the cluster does not accept our token; set RAY_AUTH_MODE=token, and set "
            "RAY_AUTH_TOKEN_PATH if the cluster was started with another file than ~/.ray/auth_token"
        ) from None
    except (OSError, OverflowError, ValueError, RpcError) as error:
        raise UserError(
            f"no Ray cluster at --address {address!r}: {first_line(error)}; start it, or correct the address"
        ) from None
    return place
