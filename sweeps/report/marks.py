"""Why a study's results are not comparable with the paper's: a reduced scale, stand-in images, changed settings."""

from search_spaces.space import Study
from sweeps.planning.plan import Plan


def marks(plan: Plan, study: Study) -> list[str]:
    """How the run differs from the published study, one phrase for each difference; empty if it does not."""
    found = []
    if study.scale is not None:
        found.append(f"reduced ({study.scale.name}): {study.scale.statement}")
    printed = {cell.config["data"]["name"] for cell in plan.cells(study) if "data" in cell.config}
    found += [f"{taken} in place of {name}" for name, taken in plan.overrides.stand_ins if name in printed]
    found += [f"{path} = {value} for all" for path, value in plan.overrides.values]
    return found


def short(found: list[str]) -> str:
    """The marks as one line for tables and figures; empty if there are none."""
    return f"NOT COMPARABLE WITH THE PAPER: {'; '.join(found)}" if found else ""
