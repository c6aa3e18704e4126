"""Effect of `train.model.pretrained_share` on classes that were trained on, and on classes that were not.

The classes are divided at random into folds, or by their top folder (`--by-top-folder`: kinds of things, such as fruit and packages).
For each fold a model is trained on the train split without the classes of the fold. Then the images of these classes are searched
among themselves (unseen classes), and all others among themselves (own classes), with the train split as the gallery: by the trained
model with several fixed shares of pretrained features, by the model as it searches (its share depends on the familiarity of the
query), and by the model before training (frozen). Every class is unseen once, so every query whose class is in the gallery counts
once among unseen classes, and in all other folds among own classes. Choose by the first table, whose queries are the val split; the
second table, on the test split, then evaluates that choice.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from peers import Spec, create_parser, page, prepare, run_in_process, screen, train_section
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.bundle_evaluation import save_frozen_baseline
from deeprank.evaluation.intervals import estimate
from deeprank.evaluation.metrics import query_table
from deeprank.models.embedding_model import ModelSettings, SearchModel
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.reporting import Record
from deeprank.row_numbers import CatalogueRows
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

FROZEN, BY_FAMILIARITY = "frozen", "by familiarity"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
METRICS = {"recall@1": "fine.recall_at_1", "mAP@R": "fine.map_at_r"}


def run_fold(data: Spec, settings: Spec, unseen_classes: list[str]) -> Spec:
    """Train without some classes; returns one row per query and model: its split, kind of class, duplicate group and metrics."""
    catalogue = Catalogue(data["uri"], data["version"])
    frame, codes = catalogue.frame, encode_hierarchy(catalogue.frame["label"].tolist())
    unseen = frame["label"].isin(unseen_classes)
    trained_on = frame.assign(split=frame["split"].where((frame["split"] == "train") & ~unseen, "aside"))
    triplets = sample_triplets(trained_on, SampleSettings(), catalogue.fingerprint)
    rows = CatalogueRows(np.arange(len(frame)))
    with tempfile.TemporaryDirectory() as folder:
        bundle = fit(catalogue, triplets, TrainSettings.model_validate(settings), Path(folder, "bundle"), Record(Path(folder)))
        frozen = save_frozen_baseline(bundle, Path(folder, FROZEN))
        embeddings_of = {FROZEN: catalogue_embeddings(frozen, catalogue, rows, "embedding, frozen model")}
        model, _ = bundle.load()
        assert isinstance(model, SearchModel)
        trained = catalogue_embeddings(bundle, catalogue, rows, "embedding, trained model")
        embeddings_of |= with_shares(model, trained) | {BY_FAMILIARITY: trained}
    query_rows: list[Spec] = []
    for name, embeddings in embeddings_of.items():
        query_embeddings = model.as_queries(embeddings) if name == BY_FAMILIARITY else embeddings
        for kind, in_kind in {"own": ~unseen, "unseen": unseen}.items():
            gallery = np.flatnonzero((frame["split"] == "train") & in_kind)
            for split in ("val", "test"):
                queries = np.flatnonzero((frame["split"] == split) & in_kind)
                table = query_table(query_embeddings[queries], codes[queries], embeddings[gallery], codes[gallery], RelevanceWeights())
                table = table[list(METRICS.values())].assign(model=name, kind=kind, split=split, row=queries)
                query_rows += table.assign(duplicate_group=frame["duplicate_group"].to_numpy()[queries]).to_dict("records")
    return {"query_rows": query_rows}


def with_shares(model: SearchModel, embeddings: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the search embeddings of a model as they are with other shares of pretrained features."""
    parts = np.split(embeddings, [model.finetuned.embedding_dim], axis=1)
    unit_parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return {
        f"share {share}": np.concatenate([weight**0.5 * part for weight, part in zip((1 - share, share), unit_parts, strict=True)], axis=1)
        for share in SHARES
    }


def summarize(query_rows: pd.DataFrame) -> list[Spec]:
    """Return for each split, model and kind of class each metric and its gain over the frozen model, with intervals."""
    frozen_rows = query_rows[query_rows["model"] == FROZEN].set_index(["fold", "row"])
    summaries: list[Spec] = []
    for (split, model, kind), rows in query_rows.groupby(["split", "model", "kind"], sort=False):
        groups = np.unique(rows["duplicate_group"], return_inverse=True)[1]
        num_queries = int(rows[METRICS["recall@1"]].notna().sum())
        summary: Spec = {"split": split, "model": model, "kind": kind, "queries": num_queries}
        baseline = frozen_rows.loc[pd.MultiIndex.from_frame(rows[["fold", "row"]])]
        for short, name in METRICS.items():
            values = rows[name].to_numpy()
            for key, quantity in {short: values, f"{short} gain": values - baseline[name].to_numpy()}.items():
                result = estimate(quantity, groups)
                summary[key] = [result.value, result.low, result.high]
        summaries.append(summary)
    return summaries


def show(summaries: list[Spec]) -> None:
    """Print a table for each split."""
    for split, purpose in {"val": "to choose a share", "test": "to evaluate the choice"}.items():
        in_split = [summary for summary in summaries if summary["split"] == split]
        counts = {kind: next(summary["queries"] for summary in in_split if summary["kind"] == kind) for kind in ("own", "unseen")}
        headings = [f"{kind} {short}" for kind in counts for short in METRICS]
        table = Table("model", *headings, *(f"unseen {short} gain" for short in METRICS))
        table.title = f"{split}, {purpose}: {counts['own']} queries of own classes (all folds), {counts['unseen']} of unseen classes"
        for model in dict.fromkeys(summary["model"] for summary in in_split):
            own, unseen = (next(summary for summary in in_split if (summary["model"], summary["kind"]) == (model, kind)) for kind in counts)
            values = [f"{summary[short][0]:.3f}" for summary in (own, unseen) for short in METRICS]
            gains = (unseen[f"{short} gain"] for short in METRICS)
            table.add_row(model, *values, *(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" for value, low, high in gains))
        page.print(table)


def main() -> None:
    """Train one model per fold; print both tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=12, help="of each training (default: 12)")
    parser.add_argument("--folds", type=int, default=5, help="trainings (default: 5)")
    parser.add_argument("--by-top-folder", action="store_true", help="hold out all classes of a top folder at a time")
    options = parser.parse_args()
    settings = train_section(options.config) | {"epochs": options.epochs}
    # The shares are computed from one model with pretrained features; its training does not depend on the share.
    settings["model"] = settings.get("model", {}) | {"pretrained_share": ModelSettings().pretrained_share}
    query_rows: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder, options.data)
        labels = pd.Series(np.random.default_rng(0).permutation(sorted(Catalogue(data["uri"], data["version"]).frame["label"].unique())))
        fold_numbers = pd.factorize(labels.str.split("/").str[0])[0] if options.by_top_folder else np.arange(len(labels)) % options.folds
        num_folds = fold_numbers.max() + 1
        for fold in range(num_folds):
            unseen_classes = labels[fold_numbers == fold].tolist()
            screen.print(f"fold {fold + 1} of {num_folds}: {len(unseen_classes)} of {len(labels)} classes are unseen")
            result = run_in_process(run_fold, data=data, settings=settings | {"seed": fold}, unseen_classes=unseen_classes)
            query_rows.append(pd.DataFrame(result["query_rows"]).assign(fold=fold))
    summaries = summarize(pd.concat(query_rows, ignore_index=True))
    if options.json:
        facts = {"config": str(options.config), "epochs": options.epochs, "folds": int(num_folds)}
        print(json.dumps(facts | {"results": summaries}))
    else:
        show(summaries)


if __name__ == "__main__":
    main()
