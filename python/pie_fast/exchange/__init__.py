"""What goes out to other tools and comes in from them. Importing it imports no torch."""

from pie_fast.exchange.delphi_records import delphi_record, delphi_records
from pie_fast.exchange.explanations import (
    Explanation,
    apply_labels,
    read_explanations,
    write_explanations,
)
from pie_fast.exchange.neuronpedia import read_neuronpedia

__all__ = [
    "Explanation",
    "apply_labels",
    "delphi_record",
    "delphi_records",
    "read_explanations",
    "read_neuronpedia",
    "write_explanations",
]
