"""What becomes of an error on its way to whoever reads it."""

import pickle

from connectors.errors import HeadwaterError, RateLimited, merged
from connectors.sync import Verdict
from connectors.sync.audit import AuditFailedError

RED = Verdict("quarantine", False, "error", True, "3 of 4 records refused")


def failed_audit(where: str) -> AuditFailedError:
    return AuditFailedError(where, "3 records break the contract", "Mend the source.", [RED])


def test_streams_that_failed_alike_are_one_error_also_when_its_class_asks_for_more_than_words() -> None:
    (one,) = merged([failed_audit("shop.orders"), failed_audit("shop.items")])
    assert str(one) == "shop.orders, shop.items: 3 records break the contract\nMend the source."
    assert isinstance(one, AuditFailedError)
    assert one.verdicts == (RED,)


def test_what_an_error_carries_survives_the_way_to_another_process() -> None:
    paused: HeadwaterError = RateLimited("shop.orders", "HTTP 429", "Wait.", retry_after=4.0)
    for error in (paused, failed_audit("shop.orders")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == str(error)
