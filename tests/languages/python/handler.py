"""What every handler of the conformance tests does: what its body says."""

import sys

from sandhog import Failure, Job, complete, config, enqueue, http, log, reject, retry, state

HELD = []


def handle(job: Job):
    body = job.json()
    return ACTS[body["do"]](body, job)


def set_up():
    log.info("set up")


def tear_down():
    log.info("torn down")


def job_failed(job: Job, failure: Failure):
    log.info("failed: %s %s", failure.kind, failure.message)


def done(body, job):
    return complete(body["result"]) if "result" in body else complete()


def again(body, job):
    after_ms = body.get("after_ms")
    return retry(after=None if after_ms is None else after_ms / 1000, body=body.get("body"), reason=body.get("reason"))


def error(body, job):
    raise Exception(body["message"])


def throw(body, job):
    try:
        return {}[body["message"]]
    except KeyError:
        raise RuntimeError(body["message"])


def speak(body, job):
    for level in ("trace", "debug", "info", "warn", "error"):
        getattr(log, level)(body["text"])
    print(body["text"])
    print(body["text"], file=sys.stderr)


def fields(body, job):
    return {name: getattr(job, name) for name in job.__dataclass_fields__}


def follow(body, job):
    options = body.get("options", {})
    after = options.get("after-ms")
    try:
        job = {"job_type": body["job_type"], **body["body"]}
        return enqueue(job, after=None if after is None else after / 1000, id=options.get("id"), key=options.get("key"))
    except Exception as e:
        return str(e)


def ask(body, job):
    response = http.request("GET", body["url"])
    return {"status": response.status, "body": response.text()}


def read(body, job):
    try:
        with open(body["path"]) as file:
            return file.read()
    except OSError as e:
        return str(e)


def write(body, job):
    try:
        with open(body["path"], "w") as file:
            file.write(body["text"])
    except OSError as e:
        return str(e)


def grow(body, job):
    while True:
        HELD.append(bytearray(1 << 20))


def spin(body, job):
    while True:
        pass


ACTS = {
    "complete": done,
    "retry": again,
    "reject": lambda body, job: reject(body["message"]),
    "error": error,
    "throw": throw,
    "log": speak,
    "echo": lambda body, job: body["text"],
    "fields": fields,
    "enqueue": follow,
    "config": lambda body, job: complete(config.get(body["key"])),
    "state": lambda body, job: state.increment(body["key"]),
    "http": ask,
    "read": read,
    "write": write,
    "grow": grow,
    "spin": spin,
}
