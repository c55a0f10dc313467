"""Addresses of a study's members in MLflow's user interface."""

from collections.abc import Iterable
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from search_spaces.space import Study
from sweeps.records.storage import Storage
from sweeps.tracking.sqlite import DatabaseError, experiment_id
from sweeps.tracking.uri import DATABASE

LOCAL = "http://127.0.0.1:5000"
"""Where `sweeps.ui` serves, unless it is given another port."""


def member_links(uri: str, experiment: str, studies: Iterable[Study]) -> dict[str, str]:
    """By study, the address of the list of its members, the best first.

    Args:
        uri: of the tracking server or database; a database is shown by `sweeps.ui`.
        experiment: MLflow's id of the sweep's experiment.
        studies: that have members.
    """
    server = _without_user(uri).rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL
    return {study.name: f"{server}/#/experiments/{experiment}/runs?{_query(study)}" for study in studies}


def links_of_storage(storage: Storage, studies: Iterable[Study]) -> dict[str, str]:
    """The same for the database beside the sweeps of a folder; empty if it is not there or lacks the sweep."""
    if not storage.local or not (path := storage.local_path.parent / DATABASE).is_file():
        return {}
    try:
        experiment = experiment_id(path, storage.name)
    except DatabaseError:
        return {}
    return {} if experiment is None else member_links(str(path), experiment, studies)


def _query(study: Study) -> str:
    # MLflow unfolds nested runs into one list as soon as they are ordered by anything but their time.
    condition = f'tags.kind = "member" and tags.study = "{study.name}"'
    order = {"orderByKey": f"metrics.`{study.metric}`", "orderByAsc": str(study.mode == "min").lower()}
    return urlencode({"searchFilter": condition, **order}, quote_via=quote)


def _without_user(uri: str) -> str:
    """A server's address without user and password: browsers ask for them."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
