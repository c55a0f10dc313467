"""Members that become known during a sweep: suggestions of a search, values taken from a winner, finalists.

All decisions are recorded in the ledger, so that a resumed run does not decide again.
"""

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from search_spaces.space import Labels, Study, Winner, holds
from sweeps.errors import UserError
from sweeps.planning import ranking
from sweeps.planning.choices import Evidence, RecordedChoice
from sweeps.planning.confirmation import Confirmation
from sweeps.planning.plan import Member, Plan, PlannedCell
from sweeps.planning.search import CellSearch
from sweeps.records.ledger import Ledger, Row


class Unfolding:
    """The known members of one study.

    Args:
        plan: the plan with the study.
        study: the study.
        ledger: the ledger with recorded choices and suggestions.
        before: unfoldings of earlier studies by name; has all studies from which this one takes values.

    Raises:
        UserError: recorded suggestions do not fit the study.
    """

    def __init__(self, plan: Plan, study: Study, ledger: Ledger, before: Mapping[str, "Unfolding"]):
        self.study = study
        self._plan, self._ledger, self._before = plan, ledger, before
        self._cells = [_CellState(cell) for cell in plan.cells(study)]
        self._open = self._cells
        """The cells with members still to come."""
        self.size = plan.size(study)
        """Number of members: the planned number until all are known."""
        self._confirmation = Confirmation(plan, study, ledger) if plan.confirming_seeds else None
        self._all: tuple[Member, ...] | None = None
        """The members that choose, once all are known: kept, since they are asked for after each cohort."""
        for cell in self._cells:
            self._recall(cell)
        self._close()
        # A cell that waits for a winner may have been blocked when the finalists were chosen from the other cells.
        if self._confirmation and not any(cell.ready for cell in self._open):
            self._confirmation.recall(self.choosing())
            self._close()

    def members(self) -> tuple[Member, ...]:
        """The known members, each once; those that confirm finalists come last."""
        return (*self.choosing(), *(self._confirmation.members if self._confirmation else ()))

    def choosing(self) -> tuple[Member, ...]:
        """The known members without those that confirm finalists, each once."""
        return self._all or tuple({m.key: m for cell in self._cells for m in cell.members()}.values())

    def unmade(self) -> int:
        """The largest number of members that are still to come, without those of blocked cells."""
        cells = sum(cell.unmade(self.study) for cell in self._open if not cell.blocked)
        return len(self.study.seeds) * cells + self._unconfirmed

    @property
    def _unconfirmed(self) -> int:
        return self._confirmation.left() if self._confirmation else 0

    def stand_ins(self) -> tuple[Member, ...]:
        """As many members as are still to come, of the same cost."""
        count = self.unmade()
        return self._plan.expected(self.study)[-count:] if count else ()

    @property
    def blocked(self) -> tuple[str, ...]:
        """Reasons why members cannot be made, one for each cell that cannot take its values."""
        return tuple(cell.blocked for cell in self._open if cell.blocked)

    def more(self, rows: Mapping[str, Row], settled: set[str]) -> tuple[Member, ...]:
        """Members that have just become known; none while the members that they depend on are in training.

        Args:
            rows: rows of the ledger by key.
            settled: keys of the members that have ended and are not trained again.
        """
        new: list[Member] = []
        for cell in self._open:
            if cell.waits_for is not None and cell.waits_for not in settled:
                continue
            if not cell.ready:
                self._take(cell, rows, settled)
                new += cell.members() if cell.ready else ()
            if cell.ready and cell.search and not cell.waits(cell.search.members(), settled):
                new += cell.search.next_batch(rows)
        self._close()
        if self._confirmation and new:
            self._confirmation.forget()
        elif self._confirmation and all(cell.blocked for cell in self._open):
            new += self._confirmation.decide(self.choosing(), rows, settled)
            self._close()
        return tuple(new)

    @property
    def complete(self) -> bool:
        """Whether all members are known."""
        return not self._open and not self._unconfirmed

    def look(self, rows: Mapping[str, Row], settled: Set[str]) -> None:
        """Finds out which cells are blocked, for those who only read. Makes no members and records nothing.

        Args:
            rows: rows of the ledger by key.
            settled: keys of the members that have ended and are not trained again.
        """
        for cell in self._open:
            for winner in () if cell.ready else _winners(cell.cell):
                match, before = _match(winner, cell.cell), self._before[winner.study]
                group = before.group(match)
                if group is None or any(member.key not in settled for member in group):
                    break
                if choose(before.study, winner, match, group, rows) is None:
                    cell.blocked = self._blocked(winner, match)
                    break

    def _blocked(self, winner: Winner, match: Labels) -> str:
        where = " with " + ", ".join(f"{k} {v}" for k, v in match.items()) if match else ""
        return f"{self.study.name} needs the best of {winner.study}{where}, but no member has finished"

    @property
    def blocked_members(self) -> int:
        """The number of members that blocked cells do not get."""
        return len(self.study.seeds) * sum(cell.unmade(self.study) for cell in self._open if cell.blocked)

    def _close(self) -> None:
        """Removes cells without members to come, and corrects `size`: members can be equal, finalists can be fewer."""
        self._open = [cell for cell in self._open if cell.unmade(self.study)]
        self._all = None if self._open else self.choosing()
        choosing = self._plan.choosing(self.study) if self._all is None else len(self._all)
        confirming = len(self._confirmation.members) if self._confirmation else 0
        self.size = choosing + confirming + self._unconfirmed

    def group(self, match: Mapping[str, Any]) -> tuple[Member, ...] | None:
        """The members of the cells with these labels, without those that confirm; None while some are not known."""
        cells = [cell for cell in self._cells if all(cell.cell.labels.get(k) == v for k, v in match.items())]
        if any(cell.unmade(self.study) for cell in cells if not cell.blocked):
            return None
        return tuple(member for cell in cells for member in cell.members())

    def _recall(self, cell: "_CellState") -> None:
        """Takes values from recorded choices, if all of the cell's winners were chosen before."""
        found = [self._recorded(winner, cell.cell) for winner in _winners(cell.cell)]
        if all(choice is not None for choice in found):
            self._begin(cell, [choice for choice in found if choice is not None])

    def _recorded(self, winner: Winner, cell: PlannedCell) -> RecordedChoice | None:
        group = self._before[winner.study].group(_match(winner, cell))
        return None if group is None else self._choice(_name(self.study, winner, cell, group))

    def _choice(self, name: str) -> RecordedChoice | None:
        """A recorded choice with only its values; the evidence is not needed."""
        recorded = self._ledger.choice(name)
        return None if recorded is None else RecordedChoice.model_validate({"values": recorded["values"]})

    def _take(self, cell: "_CellState", rows: Mapping[str, Row], settled: set[str]) -> None:
        """Chooses the cell's winners, once all members of their groups have ended."""
        choices: list[RecordedChoice] = []
        for winner in _winners(cell.cell):
            match, before = _match(winner, cell.cell), self._before[winner.study]
            group = before.group(match)
            if group is None or cell.waits(group, settled):
                return
            name = _name(self.study, winner, cell.cell, group)
            choice = cell.choices.get(name) or self._choice(name)
            try:
                if choice is None and (choice := choose(before.study, winner, match, group, rows)) is not None:
                    self._ledger.record_choice(name, choice.model_dump(by_alias=True, mode="json"))
            except UserError as error:  # a suggestion without the field won; the other studies go on
                cell.blocked = f"{self.study.name} cannot take from {winner.study}: {error}"
                return
            if choice is None:
                cell.blocked = self._blocked(winner, match)
                return
            cell.choices[name] = choice
            choices.append(choice)
        cell.blocked = ""
        self._begin(cell, choices)

    def _begin(self, cell: "_CellState", choices: Sequence[RecordedChoice]) -> None:
        taken = {path: value for choice in choices for path, value in choice.values.items()}
        cell.ready = True
        if self.study.search:
            cell.search = CellSearch(self._plan, cell.cell, self._ledger, taken)
        else:
            cell.fixed = self._plan.members_of(cell.cell, taken=taken)


@dataclass
class _CellState:
    """A cell and its state."""

    cell: PlannedCell
    ready: bool = False
    """Whether it has all values that it takes from other studies."""
    fixed: tuple[Member, ...] = ()
    search: CellSearch | None = None
    blocked: str = ""
    """Why it cannot become ready; empty if nothing is known to prevent it."""
    choices: dict[str, RecordedChoice] = field(default_factory=dict[str, RecordedChoice])
    """The choices made or read in this run, by their name in the ledger; may be incomplete."""
    waits_for: str | None = None
    """The key of a member that had not ended at the last check. The cell is not checked again until it has."""

    def waits(self, members: Sequence[Member], settled: set[str]) -> bool:
        """Whether any of these members has not ended."""
        # Waits for the last one: it probably ends last, so that this is checked seldom.
        self.waits_for = next((member.key for member in reversed(members) if member.key not in settled), None)
        return self.waits_for is not None

    def members(self) -> tuple[Member, ...]:
        return self.search.members() if self.search else self.fixed

    def unmade(self, study: Study) -> int:
        """Number of suggestions still to come; without a search, 1 until the cell is ready."""
        if self.search:
            return self.search.suggestions_left()
        return 0 if self.ready else study.search.members if study.search else 1


class Unfoldings(Mapping[str, Unfolding]):
    """The unfoldings of all studies of a plan, by name, in the plan's order."""

    def __init__(self, plan: Plan, ledger: Ledger):
        self.plan = plan
        self._by_study: dict[str, Unfolding] = {}
        for study in plan.studies:
            self._by_study[study.name] = Unfolding(plan, study, ledger, self._by_study)

    def __getitem__(self, name: str) -> Unfolding:
        return self._by_study[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_study)

    def __len__(self) -> int:
        return len(self._by_study)

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies of the plan, in its order."""
        return self.plan.studies

    def members(self) -> list[Member]:
        """The known members of all studies, in the order of the plan."""
        return [member for unfolding in self.values() for member in unfolding.members()]

    def size(self, study: Study) -> int:
        """How many members a study has, including those that are not known yet."""
        return self[study.name].size

    def total(self) -> int:
        """How many members all studies have. A member that several studies share counts once, if it is known."""
        counted: set[str] = set()
        unknown = 0
        for unfolding in self.values():
            if unfolding.complete:
                counted |= {member.key for member in unfolding.members()}
            elif unfolding.study.search:
                unknown += unfolding.size
            else:
                expected = self.plan.expected(unfolding.study)[: self.plan.choosing(unfolding.study)]
                counted |= {member.key for member in expected}
                unknown += unfolding.size - len(expected)
        return len(counted) + unknown


def unfold(plan: Plan, ledger: Ledger) -> Unfoldings:
    """The members of a plan that are known from the plan and the ledger."""
    return Unfoldings(plan, ledger)


def choose(
    study: Study, winner: Winner, match: Labels, group: Sequence[Member], rows: Mapping[str, Row]
) -> RecordedChoice | None:
    """Chooses the best configuration of a group of members (`ranking.ranked`).

    Args:
        study: the study of the group; its metric decides.
        winner: the fields to take.
        match: the labels that the group has in common.
        group: the members to choose from; all have ended.
        rows: rows of the ledger by key.

    Returns:
        The choice with the evidence; None if no member finished with a finite value of the metric.

    Raises:
        UserError: the best configuration lacks a field of `winner`.
    """
    candidates = ranking.by_configuration(group)
    best = ranking.ranked(study, candidates, lambda members: ranking.ended(members, rows))
    if not best:
        return None
    evidence = {members[0].key: _evidence(study, winner, members, rows) for members in candidates if members in best}
    chosen = evidence[best[0][0].key]
    return RecordedChoice(
        source=winner.study,
        match=dict(match),
        metric=study.metric,
        mode=study.mode,
        values=chosen.values,
        winner=chosen,
        evidence=tuple(evidence.values()),
    )


def _evidence(study: Study, winner: Winner, members: Sequence[Member], rows: Mapping[str, Row]) -> Evidence:
    found = ranking.values(ranking.ended(members, rows), study.metric)
    return Evidence(
        labels=members[0].labels,
        mean=statistics.fmean(found),
        n=len(found),
        planned=len(members),
        values=_fields(members[0], winner),
    )


def _fields(member: Member, winner: Winner) -> dict[str, Any]:
    flat = member.config.flat()
    if absent := [path for path in winner.fields if path not in flat]:
        raise UserError(f"its best configuration has no field {absent[0]!r}")
    return {path: flat[path] for path in winner.fields}


def _winners(cell: PlannedCell) -> tuple[Winner, ...]:
    """The winners from which a cell takes values."""
    return tuple(winner for winner in cell.study.takes if holds(winner.when, cell.labels))


def _match(winner: Winner, cell: PlannedCell) -> dict[str, Any]:
    try:
        return {label: cell.labels[label] for label in winner.match}
    except KeyError as error:
        raise UserError(
            f"study {cell.study.name!r} matches winners by label {error}, but has no such label; correct `match`"
        ) from None


def _name(study: Study, winner: Winner, cell: PlannedCell, group: Sequence[Member]) -> str:
    """The name of a choice in the ledger. Depends on the group's members: with more seeds, the choice is made again."""
    content = json.dumps([winner.study, winner.fields, _match(winner, cell), sorted({m.key for m in group})])
    return f"{study.name}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"
