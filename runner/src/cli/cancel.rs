//! `sandhog jobs cancel`

use clap::Args;
use http::{Method, StatusCode};

use super::client::{runners, waiting};
use super::fault::Fault;
use super::terminal::{note, plain};
use crate::config::Config;
use crate::queue::{Cancelled, QueueError};

/// Cancel a job: it becomes a dead letter (`cancelled`), whether it waits or runs.
///
/// What runs is broken off in its sandbox. On Kafka only that can be cancelled, by runners of this state folder.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The job's id
    id: String,
}

// === impl Cancel ===

impl Cancel {
    pub(super) fn run(self, config: &Config) -> Result<(), Fault> {
        let cancelled = super::on_present_queue(config, async |queue| match queue.cancel(&self.id).await {
            Err(error) if error.unsupported => Ok(Err(error)),
            cancelled => Ok(Ok(cancelled?)),
        })?;
        let id = plain(&self.id);
        match cancelled {
            Ok(Cancelled::Buried) => note(format_args!("job `{id}` is cancelled, and a dead letter")),
            Ok(Cancelled::Asked) => note(format_args!("job `{id}` runs: its runner breaks it off")),
            Ok(Cancelled::Ended(state)) => {
                return Err(Fault::failed(format!("job `{id}` has ended already: it is {}", state.as_str())));
            }
            Ok(Cancelled::Unknown) => return Err(Fault::failed(format!("there is no job `{id}`"))),
            Err(error) => self.ask_runners(config, error)?,
        }
        Ok(())
    }

    /// Where the queue does not know its jobs one by one, who runs one does.
    fn ask_runners(&self, config: &Config, error: QueueError) -> Result<(), Fault> {
        let path = format!("/v1/jobs/{}", encoded(&self.id));
        waiting(async {
            for runner in runners(config, None) {
                match runner.ask(Method::DELETE, &path).await? {
                    Some(answer) if answer.is_good() => {
                        note(format_args!("job `{}` runs: runner {} breaks it off", plain(&self.id), runner.pid));
                        return Ok(());
                    }
                    Some(answer) if ![StatusCode::NOT_FOUND, StatusCode::NOT_IMPLEMENTED].contains(&answer.status) => {
                        answer.good()?;
                    }
                    Some(_) | None => {}
                }
            }
            Err(error.into())
        })
    }
}

/// As one part of a path.
fn encoded(id: &str) -> String {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if stays(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_one_part_of_a_path() {
        assert_eq!(encoded("jobs/3/17?é"), "jobs%2F3%2F17%3F%C3%A9");
        assert_eq!(encoded("0199-a.b_c~"), "0199-a.b_c~");
    }
}
