"""The model card of a release, made from the records of the steps."""

from collections.abc import Iterable, Mapping

from deeprank.report.tables import compare_models, format_metrics, last_values
from deeprank.report.templates import create_environment
from deeprank.reporting import Record

PACKAGED_WEIGHTS = "package"
# Metrics with these prefixes are no row of the card: they are columns, or too many.
EXCLUDED_PREFIXES = ("baseline.", "gain.", "gate.", "per_class_group/")


def model_card(name: str, records: Iterable[Record], parameters: Mapping[str, str], images: int, classes: int) -> str:
    """Return the model card in Markdown.

    Args:
        name: of the model.
        records: of the steps of the run, the gate's included.
        parameters: settings of the run with dotted names, e.g. train.seed.
        images, classes: number of training images and of their classes.

    """
    values, notes = last_values(records)
    metrics = format_metrics(values)
    names = [metric_name for metric_name, metric in metrics.items() if metric.interval and not metric_name.startswith(EXCLUDED_PREFIXES)]
    return (
        create_environment(autoescape=False)
        .get_template("model_card.md.j2")
        .render(
            name=name,
            images=f"{images:,}",
            classes=f"{classes:,}",
            notes=notes,
            parameters=parameters,
            weights=parameters.get("train.model.weights", PACKAGED_WEIGHTS),
            packaged_weights=PACKAGED_WEIGHTS,
            rows=[(metric_name, compare_models(metrics, metric_name)) for metric_name in names],
        )
    )
