"""The configurations of a sweep as runs of MLflow: which members belong to each, and what its run tells of them.

A study with several seeds has a run for each configuration, between the study's run and those of its members. A study
with one seed has none: each of its members is a configuration. The seeds that confirm a finalist have a run of their
own beside that of the seeds that chose it, since they are never averaged together.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from search_spaces.space import Study
from sweeps.planning.plan import Member
from sweeps.records.ledger import Row

CONFIRMS = "+confirms"


@dataclass
class Configuration:
    """A configuration with its run.

    study: the name of its study. key: the key of its member with seed 0, whether there is one or not, with `CONFIRMS`
        if it has the seeds that confirm it.
    run_id, parent, status, n: of the run; n is the number of seeds in its means. Empty and 0 without a run.
    member: any of its members. rows: of its members that have ended, by key.
    """

    study: str
    key: str
    run_id: str = ""
    parent: str = ""
    status: str = ""
    n: int = 0
    member: Member | None = None
    rows: dict[str, Row] = field(default_factory=dict[str, Row])

    def ended_as(self, seeds: int) -> str | None:
        """The status of a run whose members have all ended, one for each seed; None while some are missing."""
        if len(self.rows) < seeds:
            return None
        ends = {row.status for row in self.rows.values()}
        return "FINISHED" if "finished" in ends else "KILLED" if "stopped" in ends else "FAILED"

    def counting(self, study: Study) -> list[Row]:
        """The rows of members that finished with a finite value of the study's metric."""
        rows = (row for row in self.rows.values() if row.status == "finished")
        return [row for row in rows if math.isfinite(row.metrics.get(study.metric, math.nan))]


class Configurations:
    """The configurations of some studies; finalists are confirmed with `confirming` seeds."""

    def __init__(self, studies: Iterable[Study], confirming: int):
        self._seeds = {study.name: len(study.seeds) for study in studies}
        self._confirming = confirming
        self._known: dict[tuple[str, str], Configuration] = {}
        self._keys: dict[tuple[str, str], str] = {}
        """Keys by study and labels: computing one takes long."""

    def add(self, known: Configuration) -> bool:
        """Adds a configuration that has a run; returns False if there is one already."""
        return self._known.setdefault((known.study, known.key), known) is known

    def of(self, member: Member) -> Configuration | None:
        """The configuration of a member; None if its study has one seed and the configuration has no run."""
        where = (member.study, repr(member.labels))
        if where not in self._keys:
            self._keys[where] = member.config.model_copy(update={"seed": 0}).key()
        name = (member.study, self._keys[where] + (CONFIRMS if member.confirms else ""))
        if name not in self._known and self._seeds_like(member) < 2:
            return None
        found = self._known.setdefault(name, Configuration(*name))
        found.member = found.member or member
        return found

    def seeds(self, configuration: Configuration) -> int:
        """The number of seeds that a configuration should have; 0 while it has no member."""
        return self._seeds_like(configuration.member) if configuration.member else 0

    def _seeds_like(self, member: Member) -> int:
        return self._confirming if member.confirms else self._seeds[member.study]

    def __iter__(self) -> Iterator[Configuration]:
        return iter(self._known.values())


def averages(rows: Sequence[Row]) -> dict[str, tuple[float, int]]:
    """The metrics of a configuration's run: by name, the value and the number of seeds that it is of.

    METRIC is the mean over seeds, METRIC.stderr its standard error if two or more seeds have it, n the number of seeds.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.metrics.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    found = {"n": (float(len(rows)), len(rows))}
    for name, each in values.items():
        found[name] = (float(np.mean(each)), len(each))
        if len(each) > 1:
            found[f"{name}.stderr"] = (float(np.std(each, ddof=1)) / math.sqrt(len(each)), len(each))
    return found
