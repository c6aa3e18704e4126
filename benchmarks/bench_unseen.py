"""What `train.model.general` buys and costs: classes that were trained on against classes that never were.

The classes are divided by chance into folds; for each fold a net trains on the train split without them. Then the fold's classes
are searched among themselves (unseen), and all others among themselves (own), gallery train, by the trained net with several
shares of general features and by the net as it was before training (frozen). Every class is unseen once, so every query whose
class the gallery has counts; among own classes it does so once a fold but its own. Choose by the first table, whose queries are
the val split; the second one, of the test split, then tells what was chosen.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from peers import GROCERY, Spec, alone, page, prepare, screen, train_section
from rich.table import Table

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.bundle_evaluation import save_frozen
from deeprank.evaluation.intervals import estimate
from deeprank.evaluation.metrics import query_table
from deeprank.models.embedding_model import ModelSettings, SearchModel
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.reporting import Record
from deeprank.training.fit import TrainSettings, fit
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

FROZEN = "frozen"
SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8)
METRICS = {"recall@1": "fine.recall_at_1", "mAP@R": "fine.map_at_r"}


def one_fold(data: Spec, settings: Spec, holdout_classes: list[str]) -> Spec:
    """Train without some classes; return a line a query and net: its split, kind, group and metrics."""
    catalogue = Catalogue(data["uri"], data["version"])
    frame, codes = catalogue.frame, encode_hierarchy(catalogue.frame["label"].tolist())
    unseen = frame["label"].isin(holdout_classes)
    learned_from = frame.assign(split=frame["split"].where((frame["split"] == "train") & ~unseen, "aside"))
    triplets = sample_triplets(learned_from, SampleSettings(), catalogue.fingerprint)
    rows = np.arange(len(frame))
    with tempfile.TemporaryDirectory() as folder:
        bundle = fit(catalogue, triplets, TrainSettings.model_validate(settings), Path(folder, "bundle"), Record(Path(folder)))
        nets = {FROZEN: catalogue_embeddings(save_frozen(bundle, Path(folder, FROZEN)), catalogue, rows, "embedding, frozen net")}
        model, _ = bundle.load()
        assert isinstance(model, SearchModel)
        nets |= with_shares(model, catalogue_embeddings(bundle, catalogue, rows, "embedding, trained net"))
    lines: list[Spec] = []
    for name, embeddings in nets.items():
        for kind, of in {"own": ~unseen, "unseen": unseen}.items():
            gallery = np.flatnonzero((frame["split"] == "train") & of)
            for split in ("val", "test"):
                queries = np.flatnonzero((frame["split"] == split) & of)
                found = query_table(embeddings[queries], codes[queries], embeddings[gallery], codes[gallery], RelevanceWeights())
                told = found[list(METRICS.values())].assign(model=name, kind=kind, split=split, row=queries)
                lines += told.assign(group=frame["group"].to_numpy()[queries]).to_dict("records")
    return {"lines": lines}


def with_shares(model: SearchModel, embeddings: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Return what a net's search embeddings would be with other shares of general features."""
    start = model.tuned.embedding_dim
    parts = np.split(embeddings, [start, start + model.before.matrix.shape[0]], axis=1)
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return {
        f"general {share}": np.concatenate(
            [w**0.5 * unit for w, unit in zip((1 - share, share / 2, share / 2), units, strict=True)], axis=1
        )
        for share in SHARES
    }


def summary(lines: pd.DataFrame) -> list[Spec]:
    """Return for each split, net and kind of class each metric and its gain over the frozen net, with intervals."""
    frozen = lines[lines["net"] == FROZEN].set_index(["fold", "row"])
    out: list[Spec] = []
    for (split, model, kind), some in lines.groupby(["split", "net", "kind"], sort=False):
        groups, line = (
            np.unique(some["group"], return_inverse=True)[1],
            {"split": split, "net": model, "kind": kind, "queries": int(some[METRICS["recall@1"]].notna().sum())},
        )
        before = frozen.loc[pd.MultiIndex.from_frame(some[["fold", "row"]])]
        for short, name in METRICS.items():
            for what, values in {short: some[name].to_numpy(), f"{short} gain": some[name].to_numpy() - before[name].to_numpy()}.items():
                found = estimate(values, groups)
                line[what] = [found.value, found.low, found.high]
        out.append(line)
    return out


def main() -> None:
    """Train a net a fold, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=GROCERY, help="whose train section is used (default: configs/grocery.yaml)")
    parser.add_argument("--epochs", type=int, default=12, help="of each training (default: 12)")
    parser.add_argument("--folds", type=int, default=5, help="trainings (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    settings = train_section(options.config) | {"epochs": options.epochs}
    # Shares are taken apart of a net that has general features; its training is the same without them.
    settings["model"] = settings.get("model", {}) | {"pretrained_share": ModelSettings().pretrained_share}
    runs: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        labels = np.random.default_rng(0).permutation(sorted(Catalogue(data["uri"], data["version"]).frame["label"].unique()))
        for fold in range(options.folds):
            holdout_classes = labels[fold :: options.folds].tolist()
            screen.print(f"fold {fold + 1} of {options.folds}: {len(holdout_classes)} of {len(labels)} classes holdout_classes")
            found = alone(one_fold, data=data, settings=settings | {"seed": fold}, holdout_classes=holdout_classes)
            runs.append(pd.DataFrame(found["lines"]).assign(fold=fold))
    told = summary(pd.concat(runs, ignore_index=True))
    if options.json:
        print(json.dumps({"config": options.config, "epochs": options.epochs, "folds": options.folds, "found": told}))
        return
    for split, what in {"val": "to choose by", "test": "what was chosen"}.items():
        lines = [line for line in told if line["split"] == split]
        counts = {kind: next(line["queries"] for line in lines if line["kind"] == kind) for kind in ("own", "unseen")}
        table = Table("net", *(f"{kind} {short}" for kind in counts for short in METRICS), *(f"unseen {short} gain" for short in METRICS))
        table.title = f"{split}, {what}: {counts['own']} queries of own classes (all folds), {counts['unseen']} of unseen ones"
        for model in dict.fromkeys(line["net"] for line in lines):
            own, unseen = (next(line for line in lines if (line["net"], line["kind"]) == (model, kind)) for kind in counts)
            shown = [f"{one[short][0]:.3f}" for one in (own, unseen) for short in METRICS]
            gains = (unseen[f"{short} gain"] for short in METRICS)
            table.add_row(model, *shown, *(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" for value, low, high in gains))
        page.print(table)


if __name__ == "__main__":
    main()
