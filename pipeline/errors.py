"""What can go wrong on this floor, as users see it; the tree goes on from targets.errors.

    EdgeproofError            exit code 1
    +-- RecipeError           exit code 2: the recipe, or a value set over it, cannot be used
    +-- UsageError            exit code 2: the command line asks for what cannot be done
    +-- DataError             exit code 1: data, a checkpoint or a user's own file is missing or not what it should be
    +-- TrainingDiverged      exit code 1: the loss is no longer finite
    +-- StoreError            exit code 1: the store's folder cannot be written or read

Message = where + what was expected + what came + what to do.
"""

from targets.errors import EdgeproofError


class RecipeError(EdgeproofError):
    """The recipe cannot be used: names file, path in it, what was expected and what came."""

    exit_code = 2


class UsageError(EdgeproofError):
    """The command line asks for what cannot be done: names the argument and the valid choices."""

    exit_code = 2


class DataError(EdgeproofError):
    """Data, a checkpoint or a user's own file is missing, broken or of another shape than expected."""


class TrainingDiverged(EdgeproofError):
    """The loss is no longer finite: names epoch, batch and loss term; the last good checkpoint is kept."""


class StoreError(EdgeproofError):
    """The store's folder cannot be written or read: names the folder, the cause and what to do."""
