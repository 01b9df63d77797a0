"""Counts its jobs from one to the next, and says how many they were when its instance ends."""

from sandhog import Failure, Handler, Job, log


class Counter(Handler):
    def set_up(self) -> None:
        self.jobs = 0
        log.info("counting from 0")

    def handle(self, job: Job) -> int:
        self.jobs += 1
        if job.json().get("fail"):
            raise RuntimeError("told to fail")
        return self.jobs

    def job_failed(self, job: Job, failure: Failure) -> None:
        log.warn("job %s failed as number %d: %s", job.id, self.jobs, failure.message)

    def tear_down(self) -> None:
        log.info("jobs worked: %d", self.jobs)
