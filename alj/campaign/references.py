"""Whose labels a data set holds: energies of two references differ by constants, surfaces by more.

Every structure that `alj` labels says so (`reference=…` in its info). Data that say nothing are
taken as the user's responsibility.
"""

from alj.campaign.datasets import Dataset
from alj.types import BadInput, Labeler

KEY = "reference"


def convention_of(labeler: Labeler) -> str:
    """Engine, method and what the energy is, in one line."""
    return getattr(labeler, "convention", labeler.name)


def check_references(
    dataset: Dataset, where: str, expected: str | None = None, *, mixed: bool = False
) -> str | None:
    """Whose labels these are, or what was expected where they do not say.

    Raises BadInput where they are of several references, or not of the expected one.
    """
    if mixed:
        return expected
    known = sorted({str(info[KEY]) for info in dataset.info if info.get(KEY)})
    wanted = expected or next(iter(known), None)
    strange = [one for one in known if one != wanted]
    if strange:
        raise BadInput(
            f"{where} holds labels of {', '.join(strange)}; expected {wanted} only: label it "
            "again (alj label), or allow it with `data.mixed_engines: true`"
        )
    return wanted
