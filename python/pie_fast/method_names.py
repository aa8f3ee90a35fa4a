"""Names of the selectors; no import, so that the command line starts at once."""

#: those that a feature dump is enough for
DUMP_METHODS = ("random", "magnitude", "fap", "fap-synergy", "paper", "auto")

#: those of `pie_fast.methods.SELECTORS`, in its order
MODEL_METHODS = (
    "random",
    "magnitude",
    "fap",
    "fap-ig",
    "relp",
    "gim",
    "exact",
    "acdc",
    "fap-synergy",
    "conditional-gradient",
    "conditional-shortlist",
    "fisher-gram",
    "linkl",
    "masks",
)

#: all of them
METHODS = tuple(dict.fromkeys((*DUMP_METHODS[:-1], *MODEL_METHODS, "auto")))
