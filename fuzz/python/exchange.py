"""Graphs and labels of others: a `DumpError`, or a value that is written and read again."""

from __future__ import annotations

import json

from _fuzzing import folder, fuzz, instrumented

with instrumented():
    from pie_fast.errors import DumpError, PieFastError
    from pie_fast.exchange.explanations import read_explanations, write_explanations
    from pie_fast.exchange.graph_import import choose_nodes, graph_from_dict, read_graph
    from pie_fast.exchange.graph_json import check_graph, graph_to_dict, write_graph
    from pie_fast.exchange.neuronpedia import read_neuronpedia

FOLDER = folder()
FILE = FOLDER / "given"


def graph() -> None:
    found = read_graph(FILE)
    document = graph_to_dict(found)
    again = graph_from_dict(json.loads(json.dumps(document)))
    assert sorted(n.id for n in again.nodes) == sorted(n.id for n in found.nodes)
    assert isinstance(check_graph(document), tuple)
    if found.features:
        assert len(choose_nodes(found, 1)) == 1
    write_graph(FOLDER / "graphs", found)


def explanations() -> None:
    _explanations(read_explanations(FILE))


def neuronpedia() -> None:
    _explanations(read_neuronpedia(FILE))


def _explanations(found: list) -> None:
    json.dumps([one.to_dict() for one in found], allow_nan=False).encode()
    write_explanations(FOLDER / "written", found, model="m", clt="c")
    assert len(read_explanations(FOLDER / "written")) == len(found)


KINDS = {b"g": graph, b"e": explanations, b"n": neuronpedia}


def one(data: bytes) -> None:
    FILE.write_bytes(data[1:])
    try:
        KINDS.get(data[:1], graph)()
    except DumpError as error:
        assert FOLDER.name in str(error), error
    except PieFastError:
        pass


fuzz(one)
