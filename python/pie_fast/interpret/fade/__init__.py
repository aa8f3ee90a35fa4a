"""FADE (arXiv 2502.16994) on sequences, with any rater and writer. Importing it imports no torch.

scores          the four measures and their gate
pipeline        a description rated, written for, and put to the steered model
steered         one feature set at every position and write layer, in batches
faithfulness    without a rater: a rule, or a set of tokens, says whether a text expresses it
"""

from pie_fast.interpret.fade.pipeline import Counts, Fade, Rater, Settings, Writer, fade

__all__ = ["Counts", "Fade", "Rater", "Settings", "Writer", "fade"]
