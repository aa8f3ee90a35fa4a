"""Where features read and write: the hook names of CLTs as hook points of the bridge.

    hook_resid_mid, hook_mlp_in   the residual stream that enters the norm before the MLP
    ln2.hook_normalized           that norm's output before its gain (and bias)
    ln2.hook_out, mlp.hook_in     its output, which the MLP reads
    mlp.hook_out                  what the MLP module returns
    hook_mlp_out                  what is added to the residual stream: `mlp.hook_out`, or, where a
                                  norm stands behind the MLP (Gemma 2 and 3), that norm's output

The names are TransformerLens', as circuit-tracer has them. Some CLTs were trained on another tensor
than their hook's name says (`ln2.hook_normalized` after the gain, say): `pie_fast.reconstruction`
finds that out.
"""

from __future__ import annotations

from collections.abc import Set

from pie_fast.errors import CheckpointError

#: CLT's name -> the bridge's, one for each tensor; the bridge fires `hook_mlp_in` on request only
_READS = {
    "hook_resid_mid": "hook_resid_mid",
    "hook_mlp_in": "hook_resid_mid",
    "ln2.hook_in": "hook_resid_mid",
    "ln2.hook_normalized": "ln2.hook_normalized",
    "ln2.hook_out": "mlp.hook_in",
    "mlp.hook_in": "mlp.hook_in",
}

# What lies inside the MLP cannot be written: replacement runs step over it.
_WRITES = {"hook_mlp_out": "hook_mlp_out", "mlp.hook_out": "mlp.hook_out"}

#: the tensors that a CLT can have been trained on, one name each
READ_SITES = ("hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in")
WRITE_SITES = ("hook_mlp_out", "mlp.hook_out")

#: what only blocks with a norm behind the MLP have
_POST_NORM = "ln2_post.hook_out"


def resolve_sites(
    read: str, write: str, known: Set[str], *, model: str, clt: str
) -> tuple[str, str]:
    """The hook points of a block, without `blocks.{l}.`, that a CLT's two hook names mean.

    Args:
        read: `feature_input_hook` of the CLT.
        write: `feature_output_hook`.
        known: The hook points of a block.
        model, clt: Their names, for the error.

    Raises:
        CheckpointError: The block has no such point, or not one that features read or write.
    """
    tables = ((read, _READS, "read"), (write, _WRITES, "write"))
    points = []
    for name, table, verb in tables:
        if not {name, table.get(name)} <= known:
            reads, writes = ([n for n, p in t.items() if p in known] for t in (_READS, _WRITES))
            raise CheckpointError(
                f"{clt}: the CLT's features {verb} hook {name!r}, which {model} does not have as "
                f"such; "
                f"there features read one of {reads} and write one of {writes}"
            )
        points.append(table[name])
    return points[0], points[1]


def other_sites(read: str, write: str, known: Set[str]) -> list[tuple[str, str]]:
    """Every other pair of tensors that a CLT can have been trained on in such a block."""
    writes = WRITE_SITES if _POST_NORM in known else (write,)
    mine = _READS[read], write
    return [(r, w) for r in READ_SITES for w in writes if r in known and (r, w) != mine]
