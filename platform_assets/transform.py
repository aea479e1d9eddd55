"""The transform code location: every dbt model and test. Offline; dbt itself is imported only inside the op."""

import warnings

import dagster as dg

from connectors.errors import HeadwaterError
from platform_assets.settings import PROJECT_ROOT


@dg.definitions
def defs() -> dg.Definitions:
    import platform_assets.defs.transform as folder

    try:
        with warnings.catch_warnings():
            # Dagster warns of its own preview and beta parts, in every process that loads this
            warnings.simplefilter("ignore", (dg.PreviewWarning, dg.BetaWarning))
            tree = dg.ComponentTree.from_module(defs_module=folder, project_root=PROJECT_ROOT)
            models = tree.build_defs(tree.defs_module_path)
    except Exception as error:
        own = _own_error(error)
        if own is None:
            raise
        raise own from None
    return dg.Definitions.merge(models, dg.Definitions(executor=dg.in_process_executor))


def _own_error(error: BaseException) -> HeadwaterError | None:
    """The platform's error inside Dagster's, which adds the component tree's frames and a drawing of it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HeadwaterError):
        cause = cause.__cause__
    return cause
