"""The exceptions of pie_fast. Each message names the value and the valid range."""


class PieFastError(ValueError):
    """Something handed to pie_fast is wrong."""


class DumpError(PieFastError):
    """A file is not what its format promises; the message names file, field and value."""


class CheckpointError(PieFastError):
    """A model or CLT checkpoint is broken, or the two do not fit each other."""


class BehaviorError(PieFastError):
    """A behaviour is empty, ambiguous, or does not fit the model's tokenizer."""


class CorpusError(PieFastError):
    """A corpus is missing, empty or not what its format promises; the message names the place."""


class BudgetError(PieFastError):
    """A budget is outside the valid range."""


class OutputExistsError(PieFastError):
    """An output folder or file exists and was not to be overwritten."""


class WorkerError(PieFastError):
    """Workers of an engine were lost again and again on the same item."""


class StorageError(PieFastError):
    """What is at a URL cannot be read or written; the message names the URL and why."""


class JournalError(PieFastError):
    """A run's journal is broken, or the run was begun with what is no longer there."""


class RunInUseError(PieFastError):
    """Another process works in the folder of a run; the message names its id."""
