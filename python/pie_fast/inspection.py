"""What there is to tell about a dump, as plain JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pie_fast.dump import FeatureDump, Progress

#: keys of the manifest that are told apart from the rest
_COUNTS = ("format", "version", "n_layers", "n_features", "n_prompts", "shards")


def inspect_dump(
    dump: FeatureDump, *, deep: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Counts, settings, entries per layer and a histogram of activations by powers of two."""
    summary = dump.summary(progress=progress)
    shards = dump.manifest["shards"]
    return {
        "path": dump.source,
        "version": dump.manifest["version"],
        "n_layers": dump.n_layers,
        "n_features": dump.n_features,
        "n_prompts": dump.n_prompts,
        "n_active": dump.n_active,
        "n_active_features": len(dump.active_features()),
        "complete": dump.complete,
        "has_attribution": dump.has_attribution,
        "n_shards": len(shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "settings": {k: v for k, v in dump.manifest.items() if k not in _COUNTS},
        "layers": [{"layer": layer, "n_active": n} for layer, n in sorted(summary.layers.items())],
        "activation": {
            "range": summary.activation_range,
            "n_zero": summary.n_zero,
            "n_negative": summary.n_negative,
            "histogram": [
                {"from": 2.0**exponent, "to": 2.0 ** (exponent + 1), "n": n}
                for exponent, n in sorted(summary.exponents.items())
            ],
        },
        "last_position": summary.last_position,
        "checked": "deep" if deep else "entries",
    }


def listed(
    ids: NDArray[np.int64], scores: NDArray[np.float64], n_features: int
) -> list[dict[str, Any]]:
    """Features as every ``--json`` lists them."""
    return [
        {
            "layer": int(id_) // n_features,
            "index": int(id_) % n_features,
            "score": float(score),
            "rank": rank,
        }
        for rank, (id_, score) in enumerate(zip(ids, scores, strict=True))
    ]
