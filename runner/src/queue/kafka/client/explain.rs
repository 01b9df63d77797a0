//! What librdkafka says, for people: what happened to what, why, and what to do about it.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::queue::QueueError;

/// The error of what could not be done (`what`, as in "cannot write to topic") to a topic, a group or a broker (`name`).
pub(crate) fn explain(error: &KafkaError, what: &str, name: &str) -> QueueError {
    use RDKafkaErrorCode as Code;
    let (message, code) = (format!("{what} `{name}`: {}", reason(error)), code(error));
    let hint = match code {
        Some(Code::TopicAuthorizationFailed) => Some(
            "allow this user to read, write, describe and create the topic, and the topics that begin with its name and a dot",
        ),
        Some(Code::GroupAuthorizationFailed) => Some(
            "allow this user to read the consumer group and that with `.delays` behind its name, or name another in `queue.kafka.consumer_group`",
        ),
        Some(Code::ClusterAuthorizationFailed) => {
            Some("allow this user to write idempotently (`IdempotentWrite` on the cluster) and to create topics")
        }
        Some(Code::TransactionalIdAuthorizationFailed) => {
            Some("allow this user to write to transactional ids that begin with the consumer group's name")
        }
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState,
        ) => Some("look at `sasl.mechanism`, `sasl.username` and `sasl.password` in `queue.kafka.client`"),
        Some(Code::SSL) => Some("look at `security.protocol` and the `ssl.` properties in `queue.kafka.client`"),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            Some("create the topic, or let the runner do it at its start (`queue.kafka.auto_create`)")
        }
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => Some("raise the topic's `max.message.bytes`"),
        Some(Code::UnsupportedVersion | Code::UnsupportedFeature) => {
            Some("the broker is too old for this: Apache Kafka 2.4 is the oldest that will do")
        }
        Some(Code::Resolve) => {
            Some("look at the host's name in `queue.url`, and at `advertised.listeners` of the broker")
        }
        _ => None,
    };
    QueueError { message, hint: hint.map(str::to_owned), transient: code.is_none_or(may_pass), unsupported: false }
}

/// The error of a client that cannot be made: its properties do not go together, or name a file that is none.
pub(crate) fn refused(error: &KafkaError) -> QueueError {
    let why = match error {
        KafkaError::ClientConfig(_, why, ..) | KafkaError::ClientCreation(why) => why.clone(),
        error => error.to_string(),
    };
    QueueError::lasting(format!("librdkafka does not take the properties in `queue.kafka.client`: {why}"))
}

/// Whether somebody has to give a permission: the library goes on trying, and says nothing else.
pub(crate) fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code(error), Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed))
}

/// Whether the broker does not speak the protocol that was asked for.
pub(crate) fn is_unsupported(error: &KafkaError) -> bool {
    matches!(code(error), Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature))
}

/// Why, in a fragment.
pub(crate) fn reason(error: &KafkaError) -> String {
    use RDKafkaErrorCode as Code;
    let Some(code) = code(error) else { return error.to_string() };
    let words = match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown => "no broker can be reached",
        Code::OperationTimedOut | Code::MessageTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            "no broker answered in time"
        }
        Code::Resolve => "the broker's name cannot be resolved",
        Code::Authentication | Code::SaslAuthenticationFailed => "the broker does not accept the credentials",
        Code::UnsupportedSASLMechanism => "the broker does not have this SASL mechanism",
        Code::SSL => "the TLS connection failed",
        Code::TopicAuthorizationFailed => "this user has no permission for the topic",
        Code::GroupAuthorizationFailed => "this user has no permission for the consumer group",
        Code::ClusterAuthorizationFailed => "this user has no permission on the cluster",
        Code::TransactionalIdAuthorizationFailed => "this user has no permission for the transactional id",
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => "there is no such topic",
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            "the record is larger than the topic's `max.message.bytes`"
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than the topic's `min.insync.replicas`"
        }
        Code::InvalidTopic => "Kafka does not take this name, or another topic's differs from it in `.` and `_` only",
        Code::InvalidReplicationFactor => "there are fewer brokers than replicas",
        Code::InvalidPartitions => "Kafka does not take this number of partitions",
        Code::PolicyViolation => "a policy of the cluster forbids it",
        Code::KafkaStorageError => "the broker cannot use its disk",
        Code::UnsupportedVersion | Code::UnsupportedFeature => "the broker does not know how",
        Code::ProducerFenced | Code::Fenced | Code::InvalidProducerEpoch => "another runner took over its transactions",
        code => return plain(code),
    };
    words.to_owned()
}

/// The code behind an error, if there is one.
fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// librdkafka's own words: `InvalidRecord (Broker: Broker failed to validate record)`, without the name in front.
fn plain(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    let words = text.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
    words.unwrap_or(&text).to_owned()
}

/// Whether nobody has to do anything for it to go right some time.
fn may_pass(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    !matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidTopic
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidArgument
            | Code::NotImplemented
    )
}
