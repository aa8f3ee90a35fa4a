"""The result of a whole run."""

from __future__ import annotations

from typing import Any

from pie_fast import display


class Discovery(dict[str, Any]):
    """``{"features", "interpretations", "evaluation"}``, and beside it what made it.

    ``features`` is the set of selected features; ``interpretations`` lists one per feature in
    the order of selection; ``evaluation`` is what :func:`pie_fast.evaluate_interpretation`
    returns. The keys are a fixed contract, so everything else is an attribute.

    Attributes:
        selector: The selector that ran: ``"fap-synergy"`` or ``"fap"``.
        regime: ``"strict"``, ``"moderate"`` or ``"relaxed"`` (``method="paper"``), else
            ``"chosen"``.
        settings: Every option of the run, circuit switches included.
        scores: What each feature was ranked by (``settings["rank_by"]``), in the order of
            selection; None where that is not kept.
        pool_size: How many candidates the selector saw.
        n_interpreted: How many features were interpreted.
    """

    selector: str
    regime: str
    settings: dict[str, Any]
    scores: list[float] | None = None
    pool_size: int
    n_interpreted: int

    def __init__(
        self,
        features: set[Any],
        interpretations: list[Any],
        evaluation: dict[str, Any],
        **made_by: Any,
    ) -> None:
        super().__init__(features=features, interpretations=interpretations, evaluation=evaluation)
        self.__dict__.update(made_by)

    def _repr_html_(self) -> str:
        return display.discovery(self)
