"""Every error the reconciler raises on purpose.

A message is a sentence for a person: what is wrong, where, and what would be right. `reason` is
the CamelCase word that /status and metrics carry, so that machines need not read sentences.
"""


class ReconcilerError(Exception):
    """Root of all errors that are expected to happen and are reported, not crashed on."""

    reason = "Error"

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or type(self).reason


class SettingsError(ReconcilerError):
    """A setting has a value that cannot work; the program ends with exit code 2."""

    reason = "BadSettings"


class GitError(ReconcilerError):
    """The config repository could not be fetched or read; what was read before stays in force."""

    reason = "GitFailed"


class ConfigError(ReconcilerError):
    """The config repository says something that cannot be followed."""

    reason = "InvalidConfig"


class SourceError(ReconcilerError):
    """A bucket or folder could not be listed or read."""

    reason = "SourceFailed"


class DownloadError(ReconcilerError):
    """The bytes of a version could not be brought here intact."""

    reason = "DownloadFailed"


class InstallError(ReconcilerError):
    """A verified version could not be put into the models folder."""

    reason = "InstallFailed"


class ServingError(ReconcilerError):
    """TensorFlow Serving refused a request or did not answer it."""

    reason = "ServingFailed"


class DeadlineError(ReconcilerError):
    """A command or request did not end in the time it was given."""

    reason = "DeadlineExceeded"
