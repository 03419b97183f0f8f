"""Why the Docker engine did not do as it was asked."""

from reconciler.errors import ReconcilerError

REFUSED = "EngineRefused"
"""It answered with an error: no permission, no such image, a port that is taken."""
INVALID = "EngineAnswerInvalid"
"""Its answer is none that an engine gives."""


class EngineError(ReconcilerError):
    """The engine could not be asked, or did not do what it was asked; or it did and could not say.

    Whoever made a change and got this looks again before the next one.
    """

    reason = "EngineUnreachable"
