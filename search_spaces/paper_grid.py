"""paper_grid: every table and figure of the papers.

    python -m sweeps.run paper_grid --plan
    python -m sweeps.run paper_grid --only 'sg/table2*'

The header of each family's file tells what its studies compare, their numbers of members, and what to expect.
"""

from search_spaces import decoupled_st_gs, discrete_vae, silent_gradients
from search_spaces.space import Sweep

SWEEPS = (
    Sweep(
        "paper_grid",
        "Every table and figure of the papers",
        (*silent_gradients.STUDIES, *decoupled_st_gs.STUDIES, *discrete_vae.STUDIES),
    ),
)
