"""Did this sync load about as many rows as the ones before it? The arithmetic is `connectors.sync.volume`.

Declared as blocking, the engine judges it before anything is published, and this module only repeats its verdict.
"""

from connectors.sync import Verdict
from connectors.sync.volume import VolumeOptions, judge_volume
from platform_assets.checks.contract import CheckType, Observation, Options, every_stream


class Volume(VolumeOptions, Options):
    """The engine's options, as a check's."""


def evaluate(observation: Observation, options: Volume) -> Verdict:
    """Rows loaded by this sync against the band of the earlier ones."""
    return judge_volume(observation.result.rows.loaded, [sync.rows for sync in observation.history.syncs], options)


CHECK = CheckType(
    name="volume_anomaly",
    description="Rows loaded lie within the usual band of the last syncs, empty ones included.",
    options=Volume,
    applies_to=every_stream,
    evaluate=evaluate,
    severity="warn",
)
