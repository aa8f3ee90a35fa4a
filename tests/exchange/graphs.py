"""Graphs for tests: random valid ones, and a small file as circuit-tracer writes it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pie_fast.exchange.graph import EMBEDDED, Graph, GraphLink, Node

N_LAYERS = 3

texts = st.text('aé"\\\n\u2028😀 ', max_size=3)
finite = st.floats(allow_nan=False, allow_infinity=False)
#: weights whose sums lose nothing that counts
tame = st.just(0.0) | st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)


@st.composite
def graphs(draw: Any, *, influences: bool = True, weights: Any = finite) -> Graph:
    """Valid graphs: features, errors, all tokens, logits of which the first is the target."""
    n_pos = draw(st.integers(1, 4))
    positions = st.integers(0, n_pos - 1)
    layers = st.integers(0, N_LAYERS - 1)
    share = (st.none() | st.floats(0, 1)) if influences else st.none()
    features = draw(
        st.lists(
            st.builds(
                Node,
                st.just("feature"),
                layers,
                st.integers(0, 20),
                positions,
                texts,
                st.none() | finite,
                share,
            ),
            max_size=8,
        )
    )
    errors = draw(
        st.lists(st.builds(Node, st.just("error"), layers, st.just(-1), positions), max_size=4)
    )
    tokens = [Node("embedding", EMBEDDED, draw(st.integers(0, 99)), t) for t in range(n_pos)]
    n_logits = draw(st.integers(1, 3))
    logits = [
        Node(
            "logit",
            N_LAYERS + 1,
            vocab,
            n_pos - 1,
            f'Output "{draw(texts)}" (p=0.1)',
            probability=draw(st.floats(0, 1 / n_logits)),
            is_target=vocab == 0,
        )
        for vocab in range(n_logits)
    ]
    nodes = list({node.id: node for node in [*features, *errors, *tokens, *logits]}.values())
    pairs = [
        (a.id, b.id)
        for a in nodes
        for b in nodes
        if a.layer < b.layer and a.position <= b.position and b.kind != "error"
    ]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
    links = [GraphLink(a, b, draw(weights)) for a, b in chosen]
    groups = draw(st.lists(st.tuples(texts, st.just((nodes[0].id,))), max_size=2))
    return Graph(
        "a-graph",
        draw(texts),
        draw(texts),
        tuple(draw(st.lists(texts, min_size=n_pos, max_size=n_pos))),
        tuple(nodes),
        tuple(links),
        tuple(groups),
        {"info": {"description": draw(texts)}, "node_threshold": 0.5},
    )


def node(node_id: str, **fields: Any) -> dict[str, Any]:
    """A node as files have it."""
    return {
        "node_id": node_id,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "clerp": "",
        "influence": None,
        "activation": None,
        **fields,
    }


def feature(layer: int, index: int, position: int, **fields: Any) -> dict[str, Any]:
    number = (layer + index) * (layer + index + 1) // 2 + index
    known = {"feature": number, "layer": str(layer), "ctx_idx": position}
    known |= {"feature_type": "cross layer transcoder", "jsNodeId": f"{layer}_{index}-0"}
    return node(f"{layer}_{index}_{position}", **{**known, **fields})


def error(node_id: str, layer: int, position: int) -> dict[str, Any]:
    known = {"feature": -1, "layer": str(layer), "ctx_idx": position}
    kind = "mlp reconstruction error"
    return node(node_id, **known, feature_type=kind, jsNodeId=f"{layer}_-1-{position}")


def small() -> dict[str, Any]:
    """A graph of two tokens through two of 26 layers."""
    tokens = [
        node(
            f"E_{token}_{t}",
            feature=t,
            layer="E",
            ctx_idx=t,
            feature_type="embedding",
            jsNodeId=f"E_{token}-{t}",
        )
        for t, token in enumerate((2, 235304))
    ]
    output = node(
        "27_235310_1",
        feature=235310,
        layer="27",
        ctx_idx=1,
        feature_type="logit",
        jsNodeId="L_235310-1",
        clerp='Output "4" (p=0.233)',
        token_prob=0.2333984375,
        is_target_logit=True,
    )
    nodes = [
        feature(0, 18753, 1, influence=0.4, activation=5.59375),
        feature(1, 12928, 1, influence=0.3, activation=11.8125, clerp="digits"),
        error("24_-1_1", 24, 1),
        *tokens,
        output,
    ]
    links = [
        ("E_2_0", "0_18753_1", -2.4),
        ("E_235304_1", "1_12928_1", 6.3),
        ("0_18753_1", "27_235310_1", -1.0),
        ("1_12928_1", "27_235310_1", 1.6),
        ("24_-1_1", "27_235310_1", 0.6),
    ]
    return {
        "metadata": {
            "slug": "small",
            "scan": "gemma-2-2b",
            "transcoder_list": [],
            "prompt_tokens": ["<bos>", "3"],
            "prompt": "<bos>3",
            "node_threshold": 0.5,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [["numbers", "0_18753_1", "1_12928_1"]],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": [{"source": a, "target": b, "weight": w} for a, b, w in links],
    }
