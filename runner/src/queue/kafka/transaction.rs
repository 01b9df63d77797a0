//! Transactions: records that appear in Kafka together, or not at all.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};

use super::Options;
use super::client::{self, Context, With};
use super::write::Write;

/// The most records that are under way at one time.
pub(super) const RECORDS_MAX: usize = 1_000;

/// How long a transaction may take with all its attempts, and a broker that is away meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one call of the library may take. Those that run out are called again.
const CALL: Duration = Duration::from_secs(5);

/// How often it is looked whether the library has let go of what was thrown away.
const LOOK: Duration = Duration::from_millis(10);

/// How often a transaction is made anew that had to be aborted. The one after a refused record fails once more by itself.
const TRIES: u32 = 3;

/// A producer of transactions. Of one id there is one at a time: the newest fences the others.
pub(super) struct Transactions {
    producer: ThreadedProducer<With<Reports>>,
    delivered: Receiver<Report>,
}

/// Why nothing of a transaction was written.
#[derive(Debug)]
pub(super) enum Undone {
    /// Somebody else makes transactions of this id now.
    Fenced,
    /// A record was refused: which of them, and why.
    Refused(usize, KafkaError),
    /// Anything else. Where the last answer was lost, it may have been written after all.
    Failed(KafkaError),
}

/// What is committed of a group, and as which of its members.
pub(super) type Offsets<'a> = (&'a TopicPartitionList, &'a ConsumerGroupMetadata);

/// What became of a record.
type Report = (usize, Result<(), KafkaError>);

/// Passes the reports on to who waits for them.
struct Reports(SyncSender<Report>);

// === impl Transactions ===

impl Transactions {
    /// Makes the producer, and fences whoever else has this id: what they have not committed is undone. Whoever reads waits
    /// for what is not ended, until the broker ends it after `timeout`.
    pub(super) fn open(options: &Options, id: &str, timeout: Duration) -> Result<Transactions, Undone> {
        let mut config = client::transactional_producer(options, id);
        config
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            // A transaction right behind another is put off for this time: the default, 100 ms, would be most of it.
            .set("retry.backoff.ms", "5")
            .set("retry.backoff.max.ms", "100");
        let (tell, delivered) = sync_channel(RECORDS_MAX);
        let reports = With { context: Context::quiet(options), own: Reports(tell) };
        let producer: ThreadedProducer<With<Reports>> = config.create_with_context(reports).map_err(Undone::Failed)?;
        let transactions = Transactions { producer, delivered };
        transactions.insist(Instant::now() + PATIENCE, |producer| producer.init_transactions(CALL))?;
        Ok(transactions)
    }

    /// Writes `writes`, all or none.
    pub(super) fn commit(&self, writes: &[&Write]) -> Result<(), Undone> {
        self.commit_with(writes, None)
    }

    /// The same together with offsets of a group's member.
    pub(super) fn commit_with(&self, writes: &[&Write], offsets: Option<Offsets<'_>>) -> Result<(), Undone> {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            tries += 1;
            let undone = match self.attempt(writes, offsets, deadline) {
                Ok(()) => return Ok(()),
                Err(undone) => undone,
            };
            // Of a producer that was fenced, records only say that they were thrown away.
            if let Some((code, _)) = self.producer.client().fatal_error() {
                return Err(Undone::of(KafkaError::Global(code)));
            }
            if matches!(undone, Undone::Fenced) {
                return Err(undone);
            }
            self.insist(deadline, |producer| producer.abort_transaction(CALL))?;
            // Reports of what was thrown away with it. The library counts other things too, of which no report comes.
            while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
                self.delivered.recv_timeout(LOOK).ok();
            }
            while self.delivered.try_recv().is_ok() {}
            let lasting = matches!(&undone, Undone::Refused(_, error) if is_too_large(error));
            if lasting || tries == TRIES || Instant::now() >= deadline {
                return Err(undone);
            }
        }
    }

    fn attempt(&self, writes: &[&Write], offsets: Option<Offsets<'_>>, deadline: Instant) -> Result<(), Undone> {
        self.producer.begin_transaction().map_err(Undone::of)?;
        for (writes, first) in writes.chunks(RECORDS_MAX).zip((0..).step_by(RECORDS_MAX)) {
            self.write(writes, first, deadline)?;
        }
        if let Some((list, member)) = offsets {
            self.insist(deadline, |producer| producer.send_offsets_to_transaction(list, member, CALL))?;
        }
        self.insist(deadline, |producer| producer.commit_transaction(CALL))
    }

    /// Writes as many as there is room for reports, the first of which is the `first`-th, and waits until they are there:
    /// committing would wait for them too, but in steps of 100 ms.
    fn write(&self, writes: &[&Write], first: usize, deadline: Instant) -> Result<(), Undone> {
        for (write, at) in writes.iter().zip(first..) {
            write.send(&self.producer, at).map_err(|error| Undone::refused(at, error))?;
        }
        let mut refused: Option<(usize, KafkaError)> = None;
        for _ in writes {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.delivered.recv_timeout(left) {
                Ok((_, Ok(()))) => {}
                // One that was refused takes the others along, which may be told before it.
                Ok((at, Err(error))) if refused.as_ref().is_none_or(|(_, error)| is_purged(error)) => {
                    refused = Some((at, error));
                }
                Ok((_, Err(_))) => {}
                Err(_) => return Err(Undone::Failed(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))),
            }
        }
        refused.map_or(Ok(()), |(at, error)| Err(Undone::refused(at, error)))
    }

    /// Calls again as long as the library says that this may help.
    fn insist(
        &self,
        deadline: Instant,
        call: impl Fn(&ThreadedProducer<With<Reports>>) -> Result<(), KafkaError>,
    ) -> Result<(), Undone> {
        loop {
            match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {}
                Err(e) => return Err(Undone::of(e)),
            }
        }
    }
}

// === impl Undone ===

impl Undone {
    fn of(error: KafkaError) -> Undone {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => Undone::Fenced,
            _ => Undone::Failed(error),
        }
    }

    fn refused(at: usize, error: KafkaError) -> Undone {
        match Undone::of(error) {
            Undone::Failed(error) => Undone::Refused(at, error),
            fenced => fenced,
        }
    }
}

/// Whether a record was thrown away because of another.
fn is_purged(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// Whether a record is larger than its topic takes.
pub(super) fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

// === impl Reports ===

impl ProducerContext for With<Reports> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, at: usize) {
        let report = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // There is room for all of a transaction; whoever waited is gone otherwise.
        self.own.0.try_send((at, report)).ok();
    }
}
