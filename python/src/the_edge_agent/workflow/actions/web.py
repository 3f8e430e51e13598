"""HTTP for actions: the client that an engine shares, and the actions ``http.get`` and ``http.post``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from the_edge_agent.workflow.actions.failures import (
    FailureError,
    checked_seconds,
    checked_text,
    returning_failures,
)

if TYPE_CHECKING:
    import httpx

MAX_BYTES: Final = 10_000_000  # of one response
_MAX_REDIRECTS: Final = 5
_NO_SUCCESS: Final = {401: "authentication_error", 403: "authentication_error", 404: "not_found", 429: "rate_limited"}


class Web:
    """An HTTP client with its connections, made when it is first used. Several threads may use it."""

    def __init__(self) -> None:
        """Make no client yet."""
        self._lock = Lock()
        self._client: httpx.Client | None = None
        self._is_closed = False

    def client(self) -> httpx.Client:
        """Return the client. Raises ``FailureError`` if httpx is missing, or after ``close``."""
        with self._lock:
            if self._is_closed:
                raise FailureError("connection_error", "the engine is closed")
            if self._client is None:
                try:
                    import httpx
                except ImportError:
                    message = 'httpx is missing; install it with: pip install "the-edge-agent[llm]"'
                    raise FailureError("dependency_missing", message) from None
                self._client = httpx.Client(max_redirects=_MAX_REDIRECTS)
            return self._client

    def close(self) -> None:
        """Close the connections. Closing again does nothing."""
        with self._lock:
            client, self._client, self._is_closed = self._client, None, True
        if client is not None:
            client.close()

    @contextmanager
    def response(self, method: str, url: str, *, timeout: float, **options: Any) -> Iterator[httpx.Response]:
        """Send a request and return the response, whose body is not yet read. Errors of the network are failures."""
        client = self.client()
        import httpx

        try:
            address = httpx.URL(url)
            if address.userinfo:  # httpx would log it
                options["auth"] = (address.username, address.password)
                address = address.copy_with(userinfo=b"")
            with client.stream(method, address, timeout=timeout, **options) as response:
                yield response
        except httpx.TimeoutException:
            raise FailureError("timeout", f"{place_of(url)} did not answer within {timeout:g} seconds") from None
        except httpx.TooManyRedirects:
            raise FailureError("http_error", f"{place_of(url)} redirects more than {_MAX_REDIRECTS} times") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise FailureError("validation_error", "the URL is not valid; it begins with http:// or https://") from None
        except httpx.LocalProtocolError:
            raise FailureError("validation_error", "the request can't be sent: a header is not valid") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            message = f"{place_of(url)} can't be reached, or the connection was lost ({type(error).__name__})"
            raise FailureError("connection_error", message) from None


def place_of(url: str) -> str:
    """Return the host of a URL for a message, without user, password, path and query."""
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return "the server"
    return parsed.netloc.decode() or "the server"


def body_of(response: httpx.Response, deadline: float, timeout: float, limit: int = MAX_BYTES) -> bytes:
    """Read the body. Raises ``FailureError`` if it is larger than ``limit`` bytes, or not there at ``deadline``."""
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > limit:
            raise FailureError("too_large", f"{place_of(str(response.url))} sent more than {limit:,} bytes")
        if monotonic() > deadline:
            raise FailureError("timeout", f"{place_of(str(response.url))} did not end within {timeout:g} seconds")
        parts.append(part)
    return b"".join(parts)


def http_actions(web: Web) -> dict[str, Callable[..., Any]]:
    """Return ``http.get`` and ``http.post`` by name."""

    def get(
        state: dict[str, Any],
        url: str,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
        timeout: float = 30,
        full: bool = False,
    ) -> Any:
        """Send a GET request. Return the data of a JSON body, or other text; with ``full`` also status and headers."""
        return _request(web, "GET", url, headers, timeout, full=full, params=params, follow_redirects=True)

    def post(
        state: dict[str, Any],
        url: str,
        json: Any = None,  # its name in agent files
        data: str | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
        timeout: float = 30,
        full: bool = False,
    ) -> Any:
        """Send a POST request with ``json``, or with ``data``: text or the fields of a form."""
        if json is not None and data is not None:
            raise FailureError("validation_error", "give json or data, not both")
        if not isinstance(data, str | dict | None):
            raise FailureError("validation_error", f"data must be text or a mapping, not {type(data).__name__}")
        body = {"content": data} if isinstance(data, str) else {"json": json, "data": data}
        return _request(web, "POST", url, headers, timeout, full=full, params=params, **body)

    return {"http.get": returning_failures(get), "http.post": returning_failures(post)}


def _request(web: Web, method: str, url: Any, headers: Any, timeout: Any, *, full: bool, **options: Any) -> Any:
    address, seconds = checked_text(url, "url"), checked_seconds(timeout, "timeout")
    for name, value in (("headers", headers), ("params", options["params"])):
        if value is not None and not isinstance(value, Mapping):
            raise FailureError("validation_error", f"{name} must be a mapping, not {type(value).__name__}")
    sent = {str(name): str(value) for name, value in (headers or {}).items()}
    deadline = monotonic() + seconds
    try:
        with web.response(method, address, timeout=seconds, headers=sent, **options) as response:
            data = body_of(response, deadline, seconds)
            status, encoding, received = response.status_code, response.charset_encoding, dict(response.headers)
    except (TypeError, ValueError) as error:  # such as a header with a line break, or data that is no JSON
        raise FailureError("validation_error", f"the request can't be sent: {type(error).__name__}") from None
    if status >= 400:
        kind = _NO_SUCCESS.get(status, "http_error")
        raise FailureError(kind, f"{place_of(address)} answered with status {status}", status=status)
    body = _read(data, encoding)
    return {"success": True, "status": status, "headers": received, "body": body} if full else body


def _read(data: bytes, encoding: str | None) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    try:
        return data.decode(encoding or "utf-8", errors="replace")
    except LookupError:
        return data.decode("utf-8", errors="replace")
