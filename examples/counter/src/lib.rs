//! A handler that keeps something from job to job: it counts them, and says how many they were when its instance ends.
//!
//! `{"job_type": "counter"}` completes with how many jobs the instance has worked. With `{"fail": true}` it fails, which counts
//! too, and the failure hook says so.

use sandhog_guest::prelude::*;

struct Counter {
    jobs: u64,
}

impl Handler for Counter {
    fn set_up() -> Result<Counter, Error> {
        info!("counting from 0");
        Ok(Counter { jobs: 0 })
    }

    fn handle(&mut self, job: Job) -> Result<Outcome, Error> {
        self.jobs += 1;
        if job.body.contains("\"fail\"") {
            bail!("told to fail");
        }
        Outcome::complete(&self.jobs)
    }

    fn job_failed(&mut self, job: Job, failure: Failure) {
        warn!("job {} failed as number {}: {}", job.id, self.jobs, failure.message);
    }

    fn tear_down(self) {
        info!("jobs worked: {}", self.jobs);
    }
}

sandhog_guest::context_handler!(Counter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_from_one_to_the_next() {
        let mut counter = Counter::set_up().unwrap();
        for count in 1..=3 {
            assert_eq!(counter.handle(Job::new("counter", "{}")).unwrap(), Outcome::complete(&count).unwrap());
        }
        counter.tear_down();
    }
}
