"""The plan of a sweep: all members, with complete and validated configurations, before training starts."""

import contextlib
import dataclasses
import difflib
import fnmatch
import hashlib
import itertools
import shlex
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Protocol, cast

from pydantic import Field, ValidationError

from search_spaces import Sweep
from search_spaces.derived import choosing, reduced, reseeded, searched
from search_spaces.scale import SCALES
from search_spaces.settings import Settings, UntrueLabel, fixed, leaves
from search_spaces.space import Axis, Config, Dimension, Labels, Sampler, Study, Variants, holds, merge, nested
from sweeps.errors import UserError, first_line
from sweeps.planning.measured import unmeasured
from sweeps.planning.precision import complete
from sweeps.planning.rows import most_finalists
from sweeps.planning.settings import DIAGNOSTICS, apply, check_known, sets_diagnostics
from trainables.config import TrainingConfig, explain
from trainables.data import DATASETS
from trainables.halving import Halving
from trainables.registry import UnknownName

_FREEZE = "guide.freeze_epoch"
_NEAR = 5
"""How many studies a message names."""
MOST_MEMBERS = 100_000
"""The most members of a plan; all of them are made and held in memory."""
FIRST_CONFIRMING_SEED = 1000
"""The least seed with which finalists are confirmed."""


@dataclass(frozen=True)
class Member:
    """One training of a study. `labels` are the values that identify its configuration in the study."""

    study: str
    labels: dict[str, Any]
    config: TrainingConfig
    halving: Halving | None = None
    """The rule for early stopping among the members of its batch; None if it always trains to the end."""
    sibling: "Member | None" = field(default=None, repr=False, compare=False)
    """Same cell, other seed: its shape is used here too, since computing it takes long."""
    confirms: bool = False
    """Whether it confirms a finalist with a seed that chose nothing."""

    @cached_property
    def key(self) -> str:
        return self.config.key()

    @cached_property
    def shape(self) -> str:
        """Equal for members that can be trained as one cohort."""
        return self.sibling.shape if self.sibling else self.config.shape_key()

    @contextlib.contextmanager
    def building(self) -> Generator[None, None, None]:
        """A context that turns a ValueError of the network into a UserError with the study's name."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"study {self.study!r} on {self.config.data.name!r}: {error}") from None

    @cached_property
    def work(self) -> str:
        """Equal for members whose trainings cost the same: of one shape, with equally many epochs with a guide."""
        if self.sibling:
            return self.sibling.work
        guide = self.config.guide
        return self.shape if guide is None else f"{self.shape}, {guide.epochs(self.config.epochs)} with guide"

    def settled_by(self, status: str) -> bool:
        """Whether a row with this status ends the member. A row stopped early does not, if it must train to the end."""
        return status != "stopped" or self.halving is not None


@dataclass(frozen=True)
class PlannedCohort:
    """Members of one shape, trained together in one trial."""

    members: tuple[Member, ...]

    @cached_property
    def key(self) -> str:
        """A hash of its members' keys in order, so that the same members find their checkpoint again."""
        return hashlib.sha256("".join(member.key for member in self.members).encode()).hexdigest()[:24]

    @property
    def halving(self) -> Halving | None:
        return self.members[0].halving


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a study's grid: its labels, and its configuration without scale, settings and seed."""

    study: Study
    index: int
    labels: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search that replaces the grids of numbers.

    sampler: the name of an Optuna sampler.
    budget: largest number of members of each searched study, with all seeds; None for as many as its grid has.
    halving: successive halving keeps the best 1/halving of a batch at each rung; 1 keeps all.
    """

    sampler: Sampler
    budget: Annotated[int, Field(ge=1)] | None = None
    halving: Annotated[int, Field(ge=1)] = 3


@dataclass(frozen=True)
class Overrides:
    """Changes of a sweep by the command line.

    only: a glob pattern for names of studies; None for all.
    values: the settings of `--set`, by dotted path.
    seeds: the number of seeds of every study, without seeds that chose its winners (`reseeded`); None for its own.
    scale: the name of a scale; None for the full sweep.
    search: options of a search; None for the sweep's own grids and searches.
    confirm: the number of fresh seeds with which the finalists of every study are trained; None for no confirmation.
    stand_ins: pairs of a data set and the data set whose images replace it.
    """

    only: str | None = None
    values: tuple[tuple[str, Any], ...] = ()
    seeds: Annotated[int, Field(ge=1)] | None = None
    scale: str | None = None
    search: SearchOptions | None = None
    stand_ins: tuple[tuple[str, str], ...] = ()
    confirm: Annotated[int, Field(ge=2)] | None = None

    def derived(self, sweep: Sweep) -> Sweep:
        """The sweep at the scale, with the seeds and the search of these options; its name tells scale and search.

        Raises:
            UserError: there is no such scale.
        """
        if self.scale is not None:
            if self.scale not in SCALES:
                raise UserError(f"--scale must be one of full, {', '.join(SCALES)}, got {self.scale!r}")
            sweep = reduced(sweep, SCALES[self.scale].with_settings(dict(self.values)), self.seeds)
        if self.seeds is not None:
            if self.seeds > MOST_MEMBERS:  # before a list of them is made
                raise UserError(f"--seeds is at most {MOST_MEMBERS:,}, got {self.seeds:,}")
            sweep = reseeded(sweep, self.seeds)
        if self.confirm is not None and self.confirm > MOST_MEMBERS:
            raise UserError(f"--confirm is at most {MOST_MEMBERS:,}, got {self.confirm:,}")
        if (search := self.search) is not None:
            every = self.seeds is not None
            sweep = searched(sweep, search.sampler, search.budget, search.halving, all_seeds=every)
        return sweep


class Counted(Protocol):
    """Studies with their numbers of members: the planned numbers in a `Plan`, the current ones in `Unfoldings`."""

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies, in the order of the sweep."""
        ...

    def size(self, study: Study) -> int:
        """How many members a study has, including those that are not known yet."""
        ...

    def total(self) -> int:
        """How many members all studies have; a member that several studies share counts once."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """The studies of a sweep as the command line asks for them, with the members that are known from the start.

    A plan never changes. Members of searched studies, and of studies that take fields from a winner, become known while
    the sweep runs, in `sweeps.planning.unfold`.

    Attributes:
        original: the sweep as defined in `search_spaces`.
        sweep: the sweep at the scale, and with the search, that the command line asks for.
        studies: the studies that match `--only`, and the studies from which they take fields.

    Raises:
        UserError: no study matches, a setting names an unknown field, a configuration is not valid, a study takes a
            field that a possible winner lacks, the budget of a search is too small, or there are too many members.
    """

    original: Sweep
    overrides: Overrides = Overrides()

    def __post_init__(self) -> None:
        self._check_confirmation()
        self._check_members()
        self._check_budget()
        configs = (cell.config for study in self.studies for cell in self.cells(study))
        # A value of `--set` that is not valid stands in an axis by now; its field is known all the same.
        axes = [axis.key for study in self.studies for axis in study.grid if isinstance(axis, Axis)]
        searched = [d.key for study in self.studies if study.search for d in study.search.space]
        check_known(self._settings, configs, [*axes, *searched])
        assert self._by_cell is not None  # validates every configuration now
        self._check_taken()

    def _check_taken(self) -> None:
        """Raises UserError if a study takes a field that a possible winner lacks. Suggestions are not known yet."""
        by_name = {study.name: study for study in self.studies}
        for study, winner in ((each, winner) for each in self.studies for winner in each.takes):
            source = by_name[winner.study]
            if source.search:
                continue
            groups = [
                {label: cell.labels.get(label) for label in winner.match}
                for cell in self.cells(study)
                if holds(winner.when, cell.labels)
            ]
            for cell in self.cells(source):
                if not any(all(cell.labels.get(k) == v for k, v in group.items()) for group in groups):
                    continue
                lacking = set(winner.fields) - self.members_of(cell)[0].config.flat().keys()
                if lacking:
                    which = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in cell.labels.items())
                    raise UserError(
                        f"study {study.name!r} takes {min(lacking)!r} from {source.name!r}, but its configuration "
                        f"{which} has no such field; take a field that every configuration has"
                    )

    def _check_confirmation(self) -> None:
        """Raises UserError if a setting gives all members one seed: then no seed is fresh."""
        if self.overrides.confirm is not None and "seed" in self._settings:
            raise UserError(
                "--confirm trains with seeds of its own, but --set seed=… sets one seed for all; leave one of them out"
            )

    def _check_members(self) -> None:
        """Raises UserError if the plan is too large. Counts the members without making them."""
        count = sum(
            len(self.cells(study)) * (study.search.members if study.search else 1) * len(study.seeds)
            + self.most_confirming(study)
            for study in self.studies
        )
        if count > MOST_MEMBERS:
            raise UserError(
                f"this plan has {count:,} members, at most {MOST_MEMBERS:,} are accepted; use a smaller --seeds, "
                "--confirm or --budget, or choose fewer studies with --only"
            )

    def _check_budget(self) -> None:
        budget = self.overrides.search.budget if self.overrides.search else None
        smallest = {study.name: len(self.cells(study)) * len(study.seeds) for study in self.studies if study.search}
        most = max(smallest, key=lambda name: smallest[name], default=None)
        if budget is not None and most is not None and smallest[most] > budget:
            raise UserError(
                f"--budget {budget} is too small: study {most!r} needs {smallest[most]} members for one suggestion in "
                f"each row of its table, with all seeds; use at least --budget {smallest[most]}"
            )

    @cached_property
    def _settings(self) -> Settings:
        return dict(self.overrides.values)

    @cached_property
    def sweep(self) -> Sweep:
        return self.overrides.derived(self.original)

    @property
    def asked(self) -> str:
        """The name of the original sweep, as the user types it."""
        return self.original.name

    def standing_in(self, stand_ins: Mapping[str, str]) -> "Plan":
        """The same plan with some data sets replaced by others. stand_ins: the replacement by name of the data set."""
        changed = dict(self.overrides.stand_ins) | dict(stand_ins)
        return Plan(self.original, dataclasses.replace(self.overrides, stand_ins=tuple(changed.items())))

    @property
    def studies(self) -> tuple[Study, ...]:
        return self._studies

    @cached_property
    def _studies(self) -> tuple[Study, ...]:
        pattern = self.overrides.only or "*"
        chosen = {study.name for study in self.sweep.studies if fnmatch.fnmatchcase(study.name, pattern)}
        if not chosen:
            raise UserError(f"no study of {self.sweep.name!r} matches --only {pattern!r}; {self._near(pattern)}")
        found: list[Study] = []
        for study in reversed(self.sweep.studies):  # a study takes only from studies before it
            if study.name in chosen:
                try:
                    found.append(fixed(study, self._settings))
                except UntrueLabel as error:
                    raise UserError(str(error)) from None
                chosen |= {winner.study for winner in found[-1].takes}
        return tuple(reversed(found))

    def _near(self, pattern: str) -> str:
        """The names of the studies, or if they are many, those that are most like a pattern."""
        names = [study.name for study in self.sweep.studies]
        if len(names) <= _NEAR:
            return f"its studies: {', '.join(names)}"
        near = difflib.get_close_matches(pattern.strip("*"), names, n=_NEAR, cutoff=0)
        listing = shlex.join(["python", "-m", "sweeps.run", *self.original.words, "--plan"])
        return f"similar names: {', '.join(near)}; all {len(names)} are listed by: {listing}"

    @cached_property
    def _cells(self) -> Mapping[str, tuple[PlannedCell, ...]]:
        return MappingProxyType(
            {
                study.name: tuple(PlannedCell(study, index, *cell) for index, cell in enumerate(_grid(study)))
                for study in self.studies
            }
        )

    def cells(self, study: Study) -> tuple[PlannedCell, ...]:
        """The cells of a study's grid; one cell if it has no grid."""
        return self._cells[study.name]

    @cached_property
    def _by_cell(self) -> Mapping[tuple[str, int], tuple[Member, ...]]:
        """The members of every cell without suggestions, and with its own values instead of those of a winner."""
        cells = [cell for study in self.studies for cell in self.cells(study)]
        return MappingProxyType({(cell.study.name, cell.index): self._members_of(cell, {}, {}) for cell in cells})

    @cached_property
    def _examples(self) -> Mapping[str, tuple[Member, ...]]:
        """The members of `_by_cell` by study, each once."""
        found: dict[str, tuple[Member, ...]] = {}
        for study in self.studies:
            members = (member for cell in self.cells(study) for member in self.members_of(cell))
            # Settings can make cells equal; equal members are trained once.
            found[study.name] = tuple({member.key: member for member in members}.values())
        return MappingProxyType(found)

    @cached_property
    def members(self) -> Mapping[str, tuple[Member, ...]]:
        """The members that are known from the start, by study."""
        return MappingProxyType(
            {study.name: self._examples[study.name] if _known_from_start(study) else () for study in self.studies}
        )

    def members_of(
        self, cell: PlannedCell, suggested: Mapping[str, Any] = {}, taken: Mapping[str, Any] = {}
    ) -> tuple[Member, ...]:
        """The members of a cell, one for each seed.

        Args:
            cell: the cell.
            suggested: suggestion of a search: fields by dotted path, and labels of variants by the name of their axis.
            taken: fields by dotted path with the values of the winners of other studies.

        Raises:
            UserError: the configuration is not valid.
        """
        if not suggested and not taken:
            return self._by_cell[cell.study.name, cell.index]
        return self._members_of(cell, suggested, taken)

    def _members_of(
        self, cell: PlannedCell, suggested: Mapping[str, Any], taken: Mapping[str, Any]
    ) -> tuple[Member, ...]:
        study = cell.study
        labels, config = study.suggested(cell.labels, cell.config, suggested)
        config = study.reduced(config)
        for path, value in taken.items():
            config = merge(config, nested(path, value))
        stand_ins, data = dict(self.overrides.stand_ins), config.get("data")
        if data and data.get("name") in stand_ins:
            config = config | {"data": data | {"name": stand_ins[data["name"]]}}
        factor = study.search.halving if study.search else 1
        halving = None if factor == 1 else Halving(study.metric, study.mode, factor)
        first, *others = study.seeds
        config = apply(config | {"seed": first}, self._settings, [*_varied(study, labels), *taken])
        resolved = self._validated(study, config)
        labels = _true(study, labels, resolved)
        member = Member(study.name, labels, resolved, halving)
        siblings = (
            # Copies: the configuration stays valid with another seed, and validation takes ten times as long.
            Member(study.name, labels, member.config.model_copy(update={"seed": seed}), halving, sibling=member)
            for seed in others
            if "seed" not in self._settings  # which sets one seed for all
        )
        return (member, *siblings)

    @property
    def kept_seeds(self) -> tuple[str, ...]:
        """The studies whose seeds `--seeds` leaves as they are, since they choose for studies with other seeds."""
        if self.overrides.seeds is None:
            return ()
        choose = choosing(self.sweep)
        return tuple(
            study.name for study in self.studies if study.name in choose and len(study.seeds) != self.overrides.seeds
        )

    @property
    def moved(self) -> tuple[str, ...]:
        """One line for each diagnostic that moved because `--set epochs` makes the training shorter."""
        if sets_diagnostics(self._settings):
            return ()
        return tuple(
            f"{study.name}: training is shorter, so {name} is measured after epochs {list(epochs)}, not {list(printed)}"
            for study in self.studies
            for name, epochs in self.example(study).config.diagnostics.due()
            if (printed := study.reduced(self.cells(study)[0].config)[DIAGNOSTICS][name]) != epochs
        )

    @property
    def never_frozen(self) -> tuple[str, ...]:
        """One line for each study with encoders that `--set epochs` ends before they freeze."""
        return tuple(
            f"{study.name}: training is shorter, so encoders never freeze that would freeze in epoch {never}; "
            f"to freeze them, set {_FREEZE}, or use --scale"
            for study in self.studies
            if (never := sorted(self._never_frozen(study)))
        )

    def _never_frozen(self, study: Study) -> set[int]:
        """The freeze epochs of a study that come without `--set epochs`, and not with it."""
        never: set[int] = set()
        for cell in self.cells(study):
            config, trained = study.reduced(cell.config), self.members_of(cell)[0].config
            epoch = trained.guide.freeze_epoch if trained.guide else None
            if epoch is not None and trained.epochs < epoch <= config["epochs"] and _FREEZE not in self._settings:
                never.add(epoch)
        return never

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """One line for each metric that ranks a study or decides its claims, and that settings leave unmeasured."""
        return tuple(line for study in self.studies if self._settings for line in self._unmeasured(study))

    def _unmeasured(self, study: Study) -> Iterator[str]:
        missing = set[str].intersection(*(unmeasured(member.config) for member in self._examples[study.name]))
        if study.metric in missing:
            yield (
                f"{study.name}: with these settings no member measures {study.metric}, which ranks the configurations; "
                "the study will have no result"
            )
        for metric in sorted({claim.metric for claim in study.claims if claim.metric in missing} - {study.metric}):
            yield (
                f"{study.name}: with these settings no member measures {metric}, which decides claims; "
                "they will have no verdict"
            )

    def _validated(self, study: Study, config: Config) -> TrainingConfig:
        try:
            resolved = complete(config)
            DATASETS[resolved.data.name]
        except ValidationError as error:
            raise UserError(f"study {study.name!r}: {explain(error)}") from None
        except UnknownName as error:
            raise UserError(f"study {study.name!r}: data.name: {error}") from None
        return resolved

    @cached_property
    def confirming_seeds(self) -> tuple[int, ...]:
        """The seeds that confirm finalists: the first ones from 1000 that no study has. Empty without `--confirm`."""
        if self.overrides.confirm is None:
            return ()
        used = {seed for study in self.sweep.studies for seed in study.seeds}
        fresh = (seed for seed in itertools.count(FIRST_CONFIRMING_SEED) if seed not in used)
        return tuple(itertools.islice(fresh, self.overrides.confirm))

    def most_confirming(self, study: Study) -> int:
        """The largest number of members that can confirm finalists of a study; 0 without `--confirm`."""
        return (self.overrides.confirm or 0) * self._most_finalists(study)

    def _most_finalists(self, study: Study) -> int:
        if self.overrides.confirm is None:
            return 0
        return most_finalists(study, [cell.labels for cell in self.cells(study)])

    def choosing(self, study: Study) -> int:
        """Planned number of members of a study that choose, without those that confirm finalists."""
        if study.search:
            return len(self.cells(study)) * study.search.members * len(study.seeds)
        return len(self._examples[study.name])

    def size(self, study: Study) -> int:
        """Planned number of members of a study; suggestions or winners that turn out equal count twice.

        Finalists count with the largest number that the study can have.
        """
        return self.choosing(study) + self.most_confirming(study)

    def expected(self, study: Study) -> tuple[Member, ...]:
        """As many members as the study has; members of the same cost stand for those not known yet.

        Those that confirm finalists come last.
        """
        return self._examples[study.name] * (study.search.members if study.search else 1) + self._fresh[study.name]

    @cached_property
    def _fresh(self) -> Mapping[str, tuple[Member, ...]]:
        """By study, as many members as can confirm finalists; cells of the grid stand for these."""
        found: dict[str, tuple[Member, ...]] = {}
        for study in self.studies:
            finalists = itertools.cycle([self.members_of(cell)[0] for cell in self.cells(study)])
            found[study.name] = self.confirming(study, itertools.islice(finalists, self._most_finalists(study)))
        return MappingProxyType(found)

    def confirming(self, study: Study, finalists: Iterable[Member]) -> tuple[Member, ...]:
        """The members that confirm finalists of a study. finalists: a member of each one, with any seed."""
        return tuple(
            Member(
                study.name,
                member.labels,
                # A copy, as in `_members_of`.
                member.config.model_copy(update={"seed": seed}),
                sibling=member.sibling or member,
                confirms=True,
            )
            for member in finalists
            for seed in self.confirming_seeds
        )

    def total(self) -> int:
        """Planned number of members; a member that several studies share counts once."""
        grids = [self._examples[study.name] for study in self.studies if not study.search]
        others = sum(
            self.most_confirming(study) + (self.choosing(study) if study.search else 0) for study in self.studies
        )
        return len({member.key for members in grids for member in members}) + others

    def example(self, study: Study) -> Member:
        """The first member of a study; for a search, the member without suggestions."""
        return self._examples[study.name][0]

    @property
    def data_sets(self) -> set[str]:
        """The names of the data sets that the members need."""
        return {member.config.data.name for members in self._examples.values() for member in members}


def _grid(study: Study) -> list[tuple[Labels, Config]]:
    """The cells of a study's grid, or a UserError if its base or an axis has values of wrong types."""
    try:
        return list(study.cells())
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"study {study.name!r}: its grid is not valid: {first_line(error)}") from None


def _axes(study: Study) -> Iterator[Axis | Dimension]:
    yield from study.grid
    yield from study.search.space if study.search else ()


def _varied(study: Study, labels: Mapping[str, Any]) -> Iterator[str]:
    """The paths of the fields that the labels of a cell set."""
    for axis in _axes(study):
        if axis.key in labels and holds(axis.when, labels):  # axes for different cells can have the same name
            if isinstance(axis, Variants):
                yield from (path for path, _ in leaves(axis.patches[labels[axis.key]]))
            else:
                yield axis.key


def _true(study: Study, labels: Labels, config: TrainingConfig) -> Labels:
    """Labels with the values in the final configuration, since a scale or a setting may have changed them."""
    flat = config.flat()
    fields = {axis.key for axis in _axes(study) if not isinstance(axis, Variants)} & flat.keys()
    return {
        name: flat[name] if name in fields and flat[name] != _plain(value) else value for name, value in labels.items()
    }


def _plain(value: object) -> object:
    return [_plain(each) for each in cast(tuple[object, ...], value)] if isinstance(value, tuple) else value


def _known_from_start(study: Study) -> bool:
    return study.search is None and not study.takes
