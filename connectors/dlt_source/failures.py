"""What failed inside a dlt source, as an error of ours."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import requests
from dlt.common.configuration.exceptions import ConfigurationException

from connectors.errors import AuthError, ConfigError, HeadwaterError, RateLimited, SourceError, TransientError
from connectors.secrets import mask


@contextmanager
def classified(where: str, place: str, secrets: Sequence[str]) -> Generator[None]:
    """dlt wraps what a resource raised; the first cause that tells something decides the class."""
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        raise _classify(error, where, place, secrets) from error


def _classify(error: Exception, where: str, place: str, secrets: Sequence[str]) -> HeadwaterError:
    for cause in _chain(error):
        what = mask(f"{place} raised {type(cause).__name__}: {' '.join(str(cause).split())[:300]}", secrets)
        match cause:
            case HeadwaterError():
                return cause
            case ConfigurationException():
                return ConfigError(where, what, "Name it in connector.arguments or secrets, or in dlt's configuration.")
            case requests.HTTPError() if cause.response is not None:
                return _of_status(cause.response, where, what)
            case ConnectionError() | TimeoutError() | requests.ConnectionError() | requests.Timeout():
                return TransientError(where, what, "The source or the network failed; the next sync reads anew.")
            case _:
                continue
    what = mask(f"{place} raised {type(error).__name__}: {' '.join(str(error).split())[:300]}", secrets)
    return SourceError(
        where, what, "`--debug` shows where; the source is not as its code expects, or the code is wrong."
    )


def _of_status(response: requests.Response, where: str, what: str) -> HeadwaterError:
    status = response.status_code
    if status in (401, 403):
        return AuthError(where, what, "Check the credentials in connector.secrets.")
    if status == 429:
        after = response.headers.get("retry-after", "")
        return RateLimited(where, what, "Ask less often.", retry_after=float(after) if after.isdigit() else None)
    if status == 408 or status >= 500:
        return TransientError(where, what, "The source failed; the next sync reads anew.")
    return SourceError(where, what, "Check the arguments of the source.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
