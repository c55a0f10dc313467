"""What keeps a study's results from being held against the paper's: reductions, stand-in images, changed settings."""

from search_spaces.space import Study
from sweeps.planning.plan import Plan


def marks(plan: Plan, study: Study) -> list[str]:
    """In what a study, as it was run, differs from the one that is printed; a phrase each, none where in nothing."""
    found = []
    if study.scale is not None:
        found.append(f"reduced ({study.scale.name}): {study.scale.statement}")
    printed = {cell.config["data"]["name"] for cell in plan.cells(study) if "data" in cell.config}
    found += [f"{taken} in place of {name}" for name, taken in plan.overrides.stand_ins if name in printed]
    found += [f"{path} = {value} for all" for path, value in plan.overrides.values]
    return found


def short(found: list[str]) -> str:
    """Marks as they stand on every table and figure; empty where there are none."""
    return f"NOT COMPARABLE WITH THE PAPER: {'; '.join(found)}" if found else ""
