"""Names of the engines; no import, so that the command line starts at once."""

ENGINES = ("local", "ray")
