"""The SDK of Sandhog's handlers in Python. One file, without dependencies.

A handler is a module with a function `handle(job)`, and, if it likes, `set_up()`, `tear_down()` and `job_failed(job, failure)`;
or with a class derived from `Handler` that has these as methods. `sandhog build` makes a component of it. The same module runs
under ordinary Python too, for tests: there is no sandbox behind the SDK then, and `testing` holds what it did.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Union

try:
    # What the sandbox gives: written by `sandhog build`, and not there otherwise.
    import sandhog_host as _host  # type: ignore[import-not-found]
except ImportError:
    _host = None

_serving = False
"""Whether the component is made. Until then the modules are run, once for all instances, and there is no job to log for."""

__all__ = ["Delay", "Error", "Failure", "Handler", "Job", "Json", "Outcome", "Response"]
__all__ += ["complete", "config", "enqueue", "http", "log", "reject", "retry", "state", "testing"]

Json = Union[None, bool, int, float, str, list[Any], dict[str, Any]]
"""Whatever JSON can say."""

Delay = Union[str, float, timedelta]
"""`"500ms"`, `"30s"`, `"10m"`, `"1h 30m"`; a number of seconds; or a timedelta. Up to 49 days."""


class Error(Exception):
    """What the sandbox refused, or could not do."""


# === the job ===


@dataclass(frozen=True)
class Job:
    """One unit of work, as one attempt sees it. `Job({"name": "Ada"})` makes one for a test."""

    body: str = "{}"
    """The job as it was enqueued, or as the last retry left it."""
    id: str = "job"
    """Names the job. The same on every attempt: it can serve as an idempotency key."""
    job_type: str = "job"
    """The string that selected this handler."""
    attempt: int = 1
    """Which start of the job this is, from 1, interrupted ones included: above 1 the work may have been half done before."""
    failures: int = 0
    """How many attempts failed so far."""
    max_failures: int = 1
    """With this many failures the job is buried."""
    enqueued_at_ms: int = 0
    """When the job was enqueued: Unix time in milliseconds."""
    timeout_ms: int = 30_000
    """How long this attempt may take, in milliseconds."""
    metadata: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a name and a value. A name may come more than once."""

    def __post_init__(self) -> None:
        if not isinstance(self.body, str):
            object.__setattr__(self, "body", json.dumps(self.body))

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` where it is none."""
        return json.loads(self.body)

    def value(self, name: str) -> str | None:
        """The first value of this name in `metadata`: `queue`, `key`, `parent`, …"""
        return next((value for found, value in self.metadata if found == name), None)

    def header(self, name: str) -> str | None:
        """A header that the enqueuer sent along."""
        return self.value(f"header.{name}")


@dataclass(frozen=True)
class Failure:
    """A failed attempt, for `job_failed`."""

    kind: str
    """What went wrong: `error`, `trap`, `timeout`, `out-of-memory`, `limit:NAME`, `rejected` and others."""
    message: str
    """The same for people."""
    buried: bool
    """Whether the job became a dead letter with this failure."""
    metadata: list[tuple[str, str]] = field(default_factory=list)


# === outcomes ===


class Outcome:
    """How an attempt ended: what `complete`, `retry` and `reject` make."""


@dataclass(frozen=True)
class _Complete(Outcome):
    result: str | None


@dataclass(frozen=True)
class _Retry(Outcome):
    after_ms: int | None
    body: str | None
    reason: str | None


@dataclass(frozen=True)
class _Reject(Outcome):
    reason: str


_NOTHING: Any = object()


def complete(result: Any = _NOTHING) -> Outcome:
    """The job is done, with a result that is kept as JSON, or without. Returning the result itself does the same."""
    return _Complete(None if result is _NOTHING else json.dumps(result, ensure_ascii=False))


def retry(after: Delay | None = None, body: Any = None, reason: str | None = None) -> Outcome:
    """The job is not finished yet: it is put back, which is no failure.

    `after` is how long to wait; without it, the handler's backoff. `body` is what the next attempt sees; without it, the same
    as this one. `reason` is for people who look at the job.
    """
    text = body if body is None or isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return _Retry(None if after is None else _milliseconds(after), text, reason)


def reject(reason: str) -> Outcome:
    """The job will never work: it becomes a dead letter at once."""
    return _Reject(reason)


_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _milliseconds(delay: Delay) -> int:
    parts: list[tuple[str, str]] = []
    if isinstance(delay, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\b", delay)
        whole = bool(parts) and re.fullmatch(r"(\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*)+", delay)
        amount = sum(float(number) * _UNITS[unit] for number, unit in parts) if whole else -1
    else:
        amount = (delay.total_seconds() if isinstance(delay, timedelta) else delay) * 1_000
    if not 0 <= amount <= 0xFFFF_FFFF:
        raise ValueError(f"`{delay}` is no delay: write one like `500ms`, `30s`, `10m` or `1h 30m`, up to 49 days")
    return round(amount)


# === the log ===


class _Log:
    """The job's log. `print` and the module `logging` write to it too."""

    def trace(self, message: object, *args: object) -> None:
        _write("trace", _line(message, args))

    def debug(self, message: object, *args: object) -> None:
        _write("debug", _line(message, args))

    def info(self, message: object, *args: object) -> None:
        _write("info", _line(message, args))

    def warn(self, message: object, *args: object) -> None:
        _write("warn", _line(message, args))

    warning = warn

    def error(self, message: object, *args: object) -> None:
        _write("error", _line(message, args))


log = _Log()


def _line(message: object, args: tuple[object, ...]) -> str:
    return str(message) % args if args else str(message)


def _write(level: str, line: str) -> None:
    if _serving:
        _host.log(_host.Level[level.upper()], line)
        return
    print(f"{level}: {line}", file=sys.stderr)
    testing.log.append((level, line))


def _bridge_logging() -> None:
    """The standard module's records go to the job's log. Only where the handler uses it: it is none of ours."""
    logging = sys.modules.get("logging")
    if logging is None or logging.getLogger().handlers:
        return

    class Bridge(logging.Handler):  # type: ignore[name-defined]
        def emit(self, record: Any) -> None:
            levels = ((40, "error"), (30, "warn"), (20, "info"), (10, "debug"))
            level = next((name for least, name in levels if record.levelno >= least), "trace")
            _write(level, self.format(record))

    logging.getLogger().addHandler(Bridge())
    logging.getLogger().setLevel(logging.NOTSET)


# === follow-up jobs ===


def enqueue(
    job: Mapping[str, Any],
    *,
    after: Delay | None = None,
    id: str | None = None,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Enqueues a follow-up job, with a `job_type` that the manifest grants (`enqueue = ["…"]`), and answers its id.

    It is there when this attempt is settled as complete, retry or reject, and is discarded otherwise. Raises `Error` with what
    the queue says.
    """
    options = [] if after is None else [("after-ms", str(_milliseconds(after)))]
    options += [(name, value) for name, value in (("id", id), ("key", key)) if value is not None]
    options += [(f"header.{name}", value) for name, value in (headers or {}).items()]
    body = json.dumps(job, ensure_ascii=False)
    if not _host:
        testing.enqueued.append((json.loads(body), dict(options)))
        return id or str(len(testing.enqueued))
    with _told("cannot enqueue"):
        return _host.enqueue(body, options)


class _told:
    """What the host answers instead of a value is raised, in words."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if _host and isinstance(error, _host.Err):
            raise Error(f"{self.what}: {_reason(error.value)}") from None


def _reason(value: Any) -> str:
    """`ErrorCode_ConnectionRefused()` is `connection-refused`, `Error_Other("full")` is `full`."""
    if isinstance(value, str):
        return value
    detail = getattr(value, "value", None)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(value).__name__.rpartition("_")[2]).lower()
    return name if not isinstance(detail, str) else detail if name == "other" else f"{name}: {detail}"


# === what the manifest grants ===


def _granted(name: str, line: str) -> Any:
    part = getattr(_host, name)
    if part is None:
        raise Error(f"{name} is not granted: say `{line}` under [grants] in the manifest, and build again")
    return part


class _Config:
    """What the manifest says under `grants.config`."""

    def get(self, name: str, default: str | None = None) -> str | None:
        if not _host:
            return testing.config.get(name, default)
        with _told(f"cannot read `{name}`"):
            found = _granted("config", "config = { … }").get(name)
        return default if found is None else found

    def all(self) -> dict[str, str]:
        if not _host:
            return dict(testing.config)
        with _told("cannot read the configuration"):
            return dict(_granted("config", "config = { … }").get_all())


config = _Config()


class _State:
    """What the handler keeps from job to job (`grants.state = true`): kept with the settlement as complete or retry."""

    def get(self, key: str) -> str | None:
        found = self.get_bytes(key)
        return None if found is None else found.decode()

    def get_bytes(self, key: str) -> bytes | None:
        if not _host:
            return testing.state.get(key)
        with _told(f"cannot read `{key}`"), self._bucket() as bucket:
            return bucket.get(key)

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        if not _host:
            testing.state[key] = content
            return
        with _told(f"cannot write `{key}`"), self._bucket() as bucket:
            bucket.set(key, content)

    def delete(self, key: str) -> None:
        if not _host:
            testing.state.pop(key, None)
            return
        with _told(f"cannot delete `{key}`"), self._bucket() as bucket:
            bucket.delete(key)

    def increment(self, key: str, delta: int = 1) -> int:
        """Adds to a number, from 0 where there is none, and answers the sum."""
        if _host:
            with _told(f"cannot increment `{key}`"), self._bucket() as bucket:
                return _host.increment(bucket, key, delta)
        total = int(self.get(key) or "0") + delta
        self.set(key, str(total))
        return total

    def keys(self) -> list[str]:
        """All keys, in their order."""
        if not _host:
            return sorted(testing.state)
        keys: list[str] = []
        cursor = None
        with _told("cannot list the keys"), self._bucket() as bucket:
            while True:
                page = bucket.list_keys(cursor)
                keys += page.keys
                cursor = page.cursor
                if cursor is None:
                    return keys

    def _bucket(self) -> Any:
        return _granted("state", "state = true").open("")


state = _State()

# === HTTP ===


@dataclass(frozen=True)
class Response:
    """What a server answered, with whatever status."""

    url: str
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    content: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        """The header of this name."""
        return next((value for found, value in self.headers if found == name.lower()), None)

    def text(self) -> str:
        """The body as text."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


class _Http:
    """Requests, to where the manifest grants them (`grants.http`). Redirects are not followed."""

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("GET", url, headers=headers)

    def post(
        self, url: str, *, headers: Mapping[str, str] | None = None, body: str | bytes | None = None, json: Any = None
    ) -> Response:
        return self.request("POST", url, headers=headers, body=body, json=json)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        json: Any = None,
    ) -> Response:
        """One request, and its whole answer. `json` is a body that is written as JSON. Raises `Error` where no answer came."""
        fields = [(name.lower(), str(value)) for name, value in (headers or {}).items()]
        if json is not None:
            body = _as_json(json)
            fields = [("content-type", "application/json"), *(pair for pair in fields if pair[0] != "content-type")]
        content = body.encode() if isinstance(body, str) else body
        if content is not None:
            fields.append(("content-length", str(len(content))))
        send = self._send if _host else self._send_natively
        return send(method.upper(), url, fields, content)

    def _send(self, method: str, url: str, fields: list[tuple[str, str]], content: bytes | None) -> Response:
        http = _granted("http", f'http = ["{url}"]')
        types = http.types
        split = re.match(r"(https?)://([^/?#]+)([^#]*)", url, re.IGNORECASE)
        if split is None:
            raise ValueError(f"`{url}` is no URL of http or https")
        scheme, authority, path = split.groups()
        with _told(f"cannot {method} `{url}`"):
            headers = types.Fields.from_list([(name, value.encode()) for name, value in fields])
            request = types.OutgoingRequest(headers)
            known = getattr(types, f"Method_{method.capitalize()}", None)
            request.set_method(known() if known else types.Method_Other(method))
            request.set_scheme(types.Scheme_Https() if scheme.lower() == "https" else types.Scheme_Http())
            request.set_authority(authority)
            request.set_path_with_query(path if path.startswith("/") else f"/{path}")
            # A body that is not asked for is no body.
            outgoing = None if content is None else request.body()
            future = http.handle(request, None)
            if outgoing is not None and content is not None:
                self._pour(types, outgoing, content)
            return self._receive(url, future)

    def _pour(self, types: Any, outgoing: Any, content: bytes) -> None:
        # Who takes no more of a body has all of it, or has answered already, or is gone: which of them, the answer says.
        with _whatever(), outgoing.write() as stream:
            rest = memoryview(content)
            while rest:
                room = stream.check_write()
                if room == 0:
                    with stream.subscribe() as ready:
                        ready.block()
                else:
                    stream.write(bytes(rest[:room]))
                    rest = rest[room:]
            stream.blocking_flush()
        with _whatever():
            types.OutgoingBody.finish(outgoing, None)

    def _receive(self, url: str, future: Any) -> Response:
        with future:
            with future.subscribe() as ready:
                ready.block()
            answer = future.get().value
        if isinstance(answer, _host.Err):
            raise answer
        with answer.value as response:
            with response.headers() as found:
                headers = [(name.lower(), value.decode(errors="replace")) for name, value in found.entries()]
            with response.consume() as body, body.stream() as stream:
                content = self._drain(stream)
            return Response(url, response.status(), headers, content)

    def _drain(self, stream: Any) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                parts.append(stream.blocking_read(1 << 20))
            except _host.Err as error:
                if not type(error.value).__name__.endswith("_Closed"):
                    raise _host.Err("the response broke off") from None
                return b"".join(parts)

    def _send_natively(self, method: str, url: str, fields: list[tuple[str, str]], content: bytes | None) -> Response:
        from urllib import error, request

        class NoRedirect(request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            asked = request.Request(url, data=content, headers=dict(fields), method=method)
            answer = request.build_opener(NoRedirect).open(asked)
        except error.HTTPError as answered:
            answer = answered
        except OSError as refused:
            raise Error(f"cannot {method} `{url}`: {refused}") from None
        with answer:
            headers = [(name.lower(), value) for name, value in answer.headers.items()]
            return Response(url, answer.status, headers, answer.read())


class _whatever:
    """What the host says against it does not matter."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, _host.Err)


_as_json = json.dumps
http = _Http()

# === handlers as classes ===


class Handler:
    """What a handler may be instead of a function: one value for the life of an instance, which is several jobs where the
    manifest has instances reused. A module has one class that is derived from it."""

    def set_up(self) -> None:
        """Called once for an instance, before its first job."""

    def handle(self, job: Job) -> Any:
        """Works one job."""
        raise NotImplementedError

    def tear_down(self) -> None:
        """Called once for an instance, after its last job, unless it was stopped."""

    def job_failed(self, job: Job, failure: Failure) -> None:
        """Called after a failed attempt or a reject."""


# === tests outside of the sandbox ===


class _Testing:
    """What the SDK did, and what it is to answer, where there is no sandbox."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As at the start."""
        self.log: list[tuple[str, str]] = []
        self.enqueued: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.config: dict[str, str] = {}
        self.state: dict[str, bytes] = {}


testing = _Testing()

# === the entry ===


def serve(module: Any, sources: Iterable[str] = ()) -> tuple[type, type, type]:
    """What the component exports, made of what the handler's module has. `sandhog build` writes a file that calls it."""
    global _serving
    acts = _acts(module)
    _remember_sources(sources)
    _bridge_logging()
    testing.reset()
    _serving = True

    class Exports:
        def handle_job(self, job: Any) -> Any:
            return _answered(lambda: _given(acts["handle"](_job(job))))

        def set_up(self) -> None:
            _answered(acts["set_up"])

        def tear_down(self) -> None:
            _mentioned(acts["tear_down"])

        def job_failed(self, job: Any, failure: Any) -> None:
            fields = (failure.kind, failure.message, failure.buried, failure.metadata)
            _mentioned(lambda: acts["job_failed"](_job(job), Failure(*fields)))

    return Exports, Exports, Exports


def _acts(module: Any) -> dict[str, Any]:
    """The functions of the module; or of the one value of its class, which is made when it is first needed."""
    derived = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Handler)]
    own = [value for value in derived if value.__module__ == module.__name__]
    names = ("handle", "set_up", "tear_down", "job_failed")
    if not own and not callable(getattr(module, "handle", None)):
        raise Error(f"`{module.__name__}` has neither a function `handle` nor a class derived from `Handler`")
    if not own:
        return {name: getattr(module, name, lambda *_: None) for name in names}
    made: list[Handler] = []

    def act(name: str, *args: Any) -> Any:
        if not made:
            made.append(own[0]())
        return getattr(made[0], name)(*args)

    return {name: lambda *args, name=name: act(name, *args) for name in names}


def _job(job: Any) -> Job:
    fields = (job.body, job.id, job.job_type, job.attempt, job.failures, job.max_failures)
    return Job(*fields, job.enqueued_at_ms, job.timeout_ms, job.metadata)


def _given(value: Any) -> Any:
    if hasattr(value, "__await__"):
        raise Error("`handle` is async: it must be an ordinary function here")
    outcome = value if isinstance(value, Outcome) else complete() if value is None else complete(value)
    if isinstance(outcome, _Complete):
        return _host.Outcome_Complete(outcome.result)
    if isinstance(outcome, _Retry):
        return _host.Outcome_Retry(_host.RetryRequest(outcome.after_ms, outcome.body, outcome.reason))
    return _host.Outcome_Reject(outcome.reason)


def _answered(act: Any) -> Any:
    """An exception becomes the `err` of the contract, and its traceback stands in the log."""
    try:
        return act()
    except BaseException as error:
        _write("error", _traceback(error))
        message = _message(error)
    finally:
        _flush()
    raise _host.Err(message)


def _mentioned(act: Any) -> None:
    try:
        act()
    except BaseException as error:
        _write("error", _traceback(error))
    finally:
        _flush()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _message(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return text if text and type(error) in (Exception, Error) else f"{name}: {text}" if text else name


def _traceback(error: BaseException) -> str:
    """Without the frames of this file: what called the handler is no news."""
    made = traceback.TracebackException.from_exception(error)
    each: Any = made
    while each is not None:
        each.stack = traceback.StackSummary.from_list([f for f in each.stack if not f.filename.endswith("/sandhog.py")])
        each = each.__cause__ or each.__context__
    return "".join(made.format()).rstrip()


def _remember_sources(paths: Iterable[str]) -> None:
    """The sandbox has no source files: what tracebacks show of them is read now."""
    import linecache

    for path in paths:
        with open(path, encoding="utf-8") as source:
            lines = source.read().splitlines(keepends=True)
        # Without a time it is never compared with the file.
        linecache.cache[path] = (0, None, lines, path)
