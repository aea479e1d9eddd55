"""What a connector in Python does itself, while the HTTP layer does everything else."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from connectors.errors import ConfigError, HeadwaterError
from connectors.http.errors import Fault, FaultError
from connectors.http.pagination import Step
from connectors.http.records import SELF, JsonPage, MalformedPageError, Slice

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec

T = TypeVar("T")
Rows = Callable[[Any, Any], Iterable[Mapping[str, Any]]]
Following = Callable[[Any, Any], Mapping[str, object] | str | None]
Parameters = Callable[[Any, str | None, str | None], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """The methods that a class has of its own; None leaves the matter to the declaration.

    owner: the class, for messages. Pages are handed over decoded, numbers with a point as Decimal.
    rows(stream, page): the records of a page. following(stream, page): parameters or address of the next page, None at
    the end. parameters(stream, since, until): what bounds the read; both None for everything.
    """

    owner: str = ""
    rows: Rows | None = None
    following: Following | None = None
    parameters: Parameters | None = None

    def cut(self, rows: Rows, stream: "HttpStreamSpec", page: JsonPage) -> list[Slice]:
        """The records as JSON. Raises FaultError when the method fails or a record is none."""

        def encoded() -> list[Slice]:
            return [_ENCODER.encode(row) for row in rows(stream, decoded(page))]

        return self._called("rows", encoded)

    def step(self, following: Following, stream: "HttpStreamSpec", page: JsonPage) -> Step | None:
        """The request after this page. Raises FaultError."""
        said = self._called("following", lambda: following(stream, decoded(page)))
        if said is None:
            return None
        return Step(url=said) if isinstance(said, str) else Step({name: str(value) for name, value in said.items()})

    def bounds(
        self, parameters: Parameters, stream: "HttpStreamSpec", since: str | None, until: str | None, label: str
    ) -> dict[str, str]:
        """Raises ConfigError."""
        try:
            return {name: str(value) for name, value in parameters(stream, since, until).items()}
        except HeadwaterError:
            raise
        except Exception as error:
            what = f"{self.owner}.parameters raised {type(error).__name__}: {error}"
            raise ConfigError(label, what, "Correct the method; `--debug` shows where.") from error

    def _called(self, method: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (HeadwaterError, FaultError, MalformedPageError):
            raise
        except Exception as error:
            what = f"{self.owner}.{method} raised {type(error).__name__}"
            hint = "The page is not as the method expects it; correct one of them. `--debug` shows where."
            raise FaultError(Fault("source", what, hint, detail=f": {error}")) from error


NO_HOOKS = Hooks()
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def decoded(page: JsonPage) -> Any:
    """The whole page. Raises MalformedPageError."""
    try:
        return _DECODER.decode(page.slice_at(SELF) or b"")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPageError(str(error), is_truncated=False) from error
