"""A handler: it greets, now or a little later."""

from sandhog import Job, Outcome, log, retry


def handle(job: Job) -> Outcome | str:
    greet = job.json()
    if greet.get("later") and job.attempt == 1:
        # No failure: the job comes again.
        return retry(after="5s")
    log.info("greeting %s", greet["name"])
    return f"Hello, {greet['name']}!"
