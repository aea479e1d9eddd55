"""The transform code location: every dbt model and test. Offline; dbt itself is imported only inside the op."""

import warnings

import dagster as dg

from platform_assets.settings import PROJECT_ROOT


@dg.definitions
def defs() -> dg.Definitions:
    import platform_assets.defs.transform as folder

    with warnings.catch_warnings():
        # Dagster warns of its own preview and beta parts, in every process that loads this
        warnings.simplefilter("ignore", (dg.PreviewWarning, dg.BetaWarning))
        tree = dg.ComponentTree.from_module(defs_module=folder, project_root=PROJECT_ROOT)
        models = tree.build_defs(tree.defs_module_path)
    return dg.Definitions.merge(models, dg.Definitions(executor=dg.in_process_executor))
