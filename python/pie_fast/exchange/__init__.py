"""What goes out to other tools and comes in from them. Importing it imports no torch.

explanations, neuronpedia   labels of features, ours and those of others
delphi_records              features as Delphi's explainers and scorers take them
graph*, influence           circuits as attribution graphs of circuit-tracer and Neuronpedia
tables                      a run's features as csv, jsonl or parquet
"""

from pie_fast.exchange.delphi_records import delphi_record, delphi_records
from pie_fast.exchange.explanations import (
    Explanation,
    apply_labels,
    read_explanations,
    write_explanations,
)
from pie_fast.exchange.graph import Graph, GraphLink, Node
from pie_fast.exchange.graph_import import (
    choose_features,
    choose_nodes,
    graph_from_dict,
    read_graph,
)
from pie_fast.exchange.graph_json import check_graph, graph_to_dict, write_graph
from pie_fast.exchange.graph_making import PromptText, circuit_graph
from pie_fast.exchange.influence import prune_links, with_influence
from pie_fast.exchange.labels import labelled_by
from pie_fast.exchange.neuronpedia import read_neuronpedia
from pie_fast.exchange.tables import feature_rows, write_table

__all__ = [
    "Explanation",
    "Graph",
    "GraphLink",
    "Node",
    "PromptText",
    "apply_labels",
    "check_graph",
    "choose_features",
    "choose_nodes",
    "circuit_graph",
    "delphi_record",
    "delphi_records",
    "feature_rows",
    "graph_from_dict",
    "graph_to_dict",
    "labelled_by",
    "prune_links",
    "read_explanations",
    "read_graph",
    "read_neuronpedia",
    "with_influence",
    "write_explanations",
    "write_graph",
    "write_table",
]
