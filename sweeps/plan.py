"""Planning: every member of a sweep, complete and validated, before anything starts."""

import difflib
import fnmatch
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, ValidationError

from search_spaces import Sweep
from search_spaces.space import Config, Study, merge, nested
from sweeps.errors import UserError
from trainables.config import TrainingConfig, explain
from trainables.data import DATASETS
from trainables.registry import UnknownName


@dataclass(frozen=True)
class Member:
    """One training of a study. `labels` are the values by which its study tells it apart from the others."""

    study: str
    labels: dict[str, Any]
    config: TrainingConfig

    @cached_property
    def key(self) -> str:
        return self.config.key()


@dataclass(frozen=True)
class Cohort:
    """Members of one shape, trained together in one trial."""

    members: tuple[Member, ...]

    @cached_property
    def key(self) -> str:
        """A hash of its members' keys: the same members find the same checkpoint."""
        return hashlib.sha256("".join(member.key for member in self.members).encode()).hexdigest()[:24]

    @property
    def member_epochs(self) -> int:
        return sum(member.config.epochs for member in self.members)


@dataclass(frozen=True)
class Overrides:
    """What the command line changes in a sweep."""

    only: str | None = None
    values: tuple[tuple[str, Any], ...] = ()
    seeds: Annotated[int, Field(ge=1)] | None = None


def parse_setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE of `--set`: a dotted path, and a JSON value or a bare word.

    Raises:
        UserError: there is no '='.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set needs KEY=VALUE, got {text!r}; for example --set optim.lr=1e-3")
    try:
        return path.strip(), json.loads(value)
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return path.strip(), value.strip()


class Plan:
    """The studies of a sweep as the command line asks for them, and the members of those that are grids.

    Raises:
        UserError: no study matches, a setting names an unknown field, or a configuration is not valid.
    """

    def __init__(self, sweep: Sweep, overrides: Overrides = Overrides()):  # frozen
        self.sweep, self.overrides = sweep, overrides
        pattern = overrides.only or "*"
        self.studies = [study for study in sweep.studies if fnmatch.fnmatchcase(study.name, pattern)]
        if not self.studies:
            names = ", ".join(study.name for study in sweep.studies)
            raise UserError(f"no study of {sweep.name!r} matches --only {pattern!r}; there are: {names}")
        self.members: dict[str, tuple[Member, ...]] = {}
        self._examples: dict[str, Member] = {}
        raw = {study.name: list(self._raw(study)) for study in self.studies}
        self._check_settings([config for cells in raw.values() for _, config in cells])
        for study in self.studies:
            members = [self._member(study, labels, self._set(config)) for labels, config in raw[study.name]]
            self._examples[study.name] = members[0]
            # Settings can make cells equal; a member is trained once.
            unique = {member.key: member for member in members}
            self.members[study.name] = () if study.search else tuple(unique.values())

    def seeds(self, study: Study) -> tuple[int, ...]:
        """The seeds of a study: its own, or 0 … n-1 by `--seeds n`."""
        return study.seeds if self.overrides.seeds is None else tuple(range(self.overrides.seeds))

    def _raw(self, study: Study) -> Iterable[tuple[dict[str, Any], Config]]:
        for labels, config in study.cells():
            for seed in self.seeds(study):
                yield labels, config | {"seed": seed}

    def suggested(self, study: Study, values: Mapping[str, Any]) -> tuple[Member, ...]:
        """The members, one a seed, of a searched study's suggestion."""
        config = study.base
        for path, value in values.items():
            config = merge(config, nested(path, value))
        return tuple(
            self._member(study, dict(values), self._set(config | {"seed": seed})) for seed in self.seeds(study)
        )

    def _set(self, config: Config) -> Config:
        fields = _fields(config)
        for path, value in self.overrides.values:
            if path in fields:
                config = merge(config, nested(path, value))
        return config

    def _check_settings(self, configs: Sequence[Config]) -> None:
        if not self.overrides.values:
            return
        known = set().union(*(_fields(config) for config in configs))
        for path, _ in self.overrides.values:
            if path not in known:
                close = difflib.get_close_matches(path, known, n=1, cutoff=0.3)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
                raise UserError(f"--set: no member has a field {path!r}; {hint}")

    def _member(self, study: Study, labels: dict[str, Any], config: Config) -> Member:
        try:
            resolved = TrainingConfig.model_validate(config)
            DATASETS[resolved.data.name]
        except ValidationError as error:
            raise UserError(f"study {study.name!r}: {explain(error)}") from None
        except UnknownName as error:
            raise UserError(f"study {study.name!r}: data.name: {error}") from None
        return Member(study.name, labels, resolved)

    def size(self, study: Study) -> int:
        """How many members a study has, those not yet suggested included."""
        return study.search.members * len(self.seeds(study)) if study.search else len(self.members[study.name])

    def total(self) -> int:
        """How many members the plan has; one that several studies share counts once."""
        searched = sum(self.size(study) for study in self.studies if study.search)
        return len({member.key for members in self.members.values() for member in members}) + searched

    def example(self, study: Study) -> Member:
        """A study's first member; of a search, what it starts from."""
        return self._examples[study.name]

    @property
    def data_sets(self) -> set[str]:
        """The names of the data sets that its members need."""
        grids = (member for members in self.members.values() for member in members)
        return {member.config.data.name for member in (*grids, *self._examples.values())}


def _fields(config: Config) -> set[str]:
    """The dotted paths that a configuration has once its defaults are filled in."""
    try:
        return set(TrainingConfig.model_validate(config).flat())
    except ValidationError:
        return set()  # told later, with the study's name


def group(members: Iterable[Member], *, slots: int, pack: int | None = None) -> list[Cohort]:
    """Groups members into cohorts, the longest first.

    Args:
        members: of any shapes; equal keys are trained once.
        slots: how many cohorts can be trained at the same time. A shape is split only where it holds more than one
            slot's share of all epochs: packed members cost less, but an idle slot costs more.
        pack: the largest number of members in a cohort, if there is a limit.
    """
    by_shape: dict[str, dict[str, Member]] = defaultdict(dict)
    for member in members:
        by_shape[member.config.shape_key()][member.key] = member
    shapes = [Cohort(tuple(same.values())) for same in by_shape.values()]
    share = sum(shape.member_epochs for shape in shapes) / slots
    cohorts = []
    for shape in shapes:
        size = len(shape.members)
        parts = min(size, math.ceil(max(shape.member_epochs / share, size / (pack or size))))
        # Sizes differ by at most one, and neighbours in the plan stay together.
        bounds = [size * part // parts for part in range(parts + 1)]
        cohorts += [Cohort(shape.members[a:b]) for a, b in pairwise(bounds)]
    return sorted(cohorts, key=lambda cohort: -cohort.member_epochs)
