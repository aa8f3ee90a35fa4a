"""Types of the native module."""

__version__: str
build_profile: str
