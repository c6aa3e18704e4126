"""The promotion gate: the new model is compared with the registered champion on the same test queries."""

from collections.abc import Sequence

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate
from deeprank.evaluation.evaluation import Evaluation
from deeprank.evaluation.gate import Decision, decide
from deeprank.evaluation.other_kind import evaluate_other_kind
from deeprank.plotting.gate import gained_and_lost
from deeprank.registry.champion import is_provisional_champion
from deeprank.registry.register import RegisterSettings
from deeprank.registry.releases import find_version, open_version
from deeprank.reporting import Reporter
from deeprank.triplets.sampling import Triplets


def evaluate_gate(
    catalogue: Catalogue,
    triplets: Triplets,
    evaluation: Evaluation,
    settings: RegisterSettings,
    reporter: Reporter,
    problems: Sequence[str] = (),
    other: Catalogue | None = None,
) -> Decision:
    """Evaluate the champion on the current test queries and decide whether the new model becomes champion.

    Reports the gate.* metrics, the notes gate.state, gate.reason and gate.champion_before, and the figure gained_and_lost.

    Args:
        catalogue: its current version.
        triplets: triplets of its test split.
        evaluation: evaluation of the new model on this test split.
        settings: name of the registered model, and the promotion rules.
        reporter: receives the results.
        problems: reasons why the new model cannot be tested, in words.
        other: images of another kind, on which the new model was evaluated too.

    """
    champion = find_version(settings.name, "champion")
    champion_name = f"champion, version {champion.version}" if champion else ""
    champion_queries, other_kind, champion_problem = None, None, ""
    if champion is not None:
        try:
            bundle = open_version(champion).bundle
            champion_queries = embed_and_evaluate(catalogue, triplets, bundle, champion_name).queries
            if other is not None and evaluation.other_queries is not None:
                other_kind = evaluation.other_queries, evaluate_other_kind(other, bundle, champion_name).queries
        except ModelError as error:
            champion_problem = (
                f"the {champion_name}, cannot be loaded: {error}; `deeprank promote VERSION --force` promotes a version without the gate"
            )
    decision = decide(
        evaluation.queries,
        champion_queries,
        evaluation.queries["duplicate_group"].to_numpy(),
        settings.promotion,
        problems,
        champion_problem,
        is_provisional=is_provisional_champion(settings.name),
        other_kind=other_kind,
    )
    _report_decision(decision, str(champion.version) if champion else "none", reporter)
    if champion_queries is not None and len(champion_queries):
        reporter.figure("gained_and_lost", gained_and_lost(catalogue, evaluation.queries, champion_queries, champion_name))
    return decision


def _report_decision(decision: Decision, champion_before: str, reporter: Reporter) -> None:
    for name, value in decision.metrics().items():
        reporter.metric(name, value)
    reporter.note("gate.state", decision.state)
    reporter.note("gate.reason", decision.reason)
    reporter.note("gate.champion_before", champion_before)
