"""Renamed settings: a config with an old key or value is refused with a message that names the new one."""

from collections.abc import Iterator
from typing import Any

# Dotted key → new dotted key. In the old key only the last word is old.
# A list adds nothing to a key: `train.losses.kwargs` is the key in each of the losses.
RENAMED_KEYS = {
    "ingest.rendered": "ingest.synthetic",
    "due": "retraining_due",
    "retraining_due.max_age": "retraining_due.max_age_days",
    "retraining_due.start": "retraining_due.init",
    "retraining_due.drift_p_value": "retraining_due.drift_alpha",
    "retraining_due.drift_classes": "retraining_due.min_drifted_class_share",
    "service.wait_seconds": "service.timeout_s",
    "sample_triplets.near_share": "sample_triplets.same_parent_fraction",
    "sample_triplets.in_class_share": "sample_triplets.same_category_fraction",
    "sample_triplets.positive_cap": "sample_triplets.max_positive_relevance",
    "sample_triplets.margin": "sample_triplets.relevance_margin",
    "sample_triplets.withheld": "sample_triplets.holdout_classes",
    "train.network": "train.model",
    "train.model.dimensions": "train.model.embedding_dim",
    "train.model.hidden": "train.model.hidden_dims",
    "train.model.general": "train.model.pretrained_share",
    "train.losses.arguments": "train.losses.kwargs",
    "train.losses.miner.arguments": "train.losses.miner.kwargs",
    "train.augment.smallest_crop": "train.augment.crop_scale",
    "train.augment.stretch": "train.augment.crop_ratio",
    "train.augment.turn": "train.augment.rotation",
    "train.augment.tint": "train.augment.channel_gain",
    "train.train_sizes": "train.train_image_sizes",
    "train.search_size": "train.eval_image_size",
    "train.batches": "train.batch_sampler",
    "train.head_start": "train.init_head",
    "train.warmup": "train.scheduler.kwargs.warmup_ratio",
    "train.average": "train.ema_decay",
    "train.patience": "train.early_stopping_patience",
    "train.losses.kwargs.gap": "train.losses.kwargs.margin",
    "train.losses.kwargs.average": "train.losses.kwargs.reducer",
    "cluster.clusters": "cluster.n_clusters",
    "index.search": "index.search_params",
    "index.search_params.probes": "index.search_params.nprobe",
    "index.search_params.clusters": "index.search_params.coarse_nprobe",
    "index.search_params.breadth": "index.search_params.ef_search",
    "index.recall": "index.min_recall",
    "index.exact_within_ms": "index.max_exact_latency_ms",
    "register.promotion.max_group_drop": "register.promotion.max_class_group_drop",
    "register.promotion.min_group_queries": "register.promotion.min_class_group_queries",
    # Of `deeprank serve --config`.
    "limits.upload_bytes": "limits.max_upload_bytes",
    "limits.held_bytes": "limits.max_bytes_in_flight",
    "limits.pixels": "limits.max_pixels",
    "limits.seconds": "limits.body_timeout_s",
    "limits.head_seconds": "limits.header_timeout_s",
    "limits.head_bytes": "limits.max_header_bytes",
    "limits.connections": "limits.max_connections",
    "batching.nets": "batching.num_workers",
    "batching.largest": "batching.max_batch_size",
    "batching.wait_ms": "batching.max_wait_ms",
    "batching.decoders": "batching.num_decoders",
    "batching.waiting": "batching.max_queue_size",
    "batching.seconds": "batching.timeout_s",
    "follow": "alias_watcher",
    "alias_watcher.every": "alias_watcher.poll_interval_s",
}
# Dotted key → old value → what to write instead, as YAML.
REPLACED_VALUES: dict[str, dict[object, str]] = {
    "ingest.source": {"rendered": "synthetic"},
    "leakage.on_leak": {"leave_out": "exclude"},
    "retraining_due.init": {"scratch": "pretrained"},
    "train.batch_sampler": {"classes": "pk"},
    "train.optimizer": {
        "AdamW": "{name: AdamW, kwargs: {betas: [0.9, 0.99]}}",
        "SGD": "{name: SGD, kwargs: {momentum: 0.9, nesterov: true}}",
    },
    "train.init_head": {True: "pca", False: "random"},
    "train.losses.name": {"RankingHinge": "TripletMarginLoss, with kwargs: {distance: {name: LpDistance, kwargs: {power: 2}}}"},
    "train.losses.kwargs.reducer": {"active": "AvgNonZeroReducer", "all": "MeanReducer"},
    "index.search_params.kind": {"clusters": "ivf_flat", "two-level": "two_level_ivf", "pq": "ivf_pq"},
}


def renamed_words(values: Any, section: str = "", prefix: str = "") -> list[str]:
    """Return a message for every renamed key and every replaced value in settings.

    Args:
        values: nested settings as a YAML file holds them.
        section: the dotted key under which they stand; empty for a whole file.
        prefix: for the messages, put before every key.

    """
    return list(_renamed_words(values, section, prefix))


def _renamed_words(values: Any, key: str, prefix: str) -> Iterator[str]:
    if isinstance(values, dict):
        for name, value in values.items():
            old_key = f"{key}.{name}" if key else str(name)
            new_key = RENAMED_KEYS.get(old_key, old_key)
            if new_key != old_key:
                yield f"unknown key {prefix}{old_key}: it was renamed to {prefix}{new_key}"
            yield from _renamed_words(value, new_key, prefix)
    elif isinstance(values, list):
        for value in values:
            yield from _renamed_words(value, key, prefix)
    else:
        replacement = REPLACED_VALUES.get(key, {}).get(values)
        if replacement is not None:
            old = str(values).lower() if isinstance(values, bool) else values
            yield f"{prefix}{key}: write {replacement} instead of {old}"
