//! The network as handlers reach it: the thread that waits for it, and names that become addresses which are allowed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::grants::{Host, may_lead_to};

/// The most names that are looked up at one time. The system's resolver blocks a thread for each.
const LOOKUPS_MAX: usize = 32;

/// How many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 8;

/// A thread with a runtime, for the connections of all handlers.
///
/// Guests that spin may occupy the guests' threads for longer than another's answer may take, and the main runtime has the
/// queue to attend to and every attempt's timeout, which must not wait for somebody's TLS. So connections have a thread of
/// their own. It is there once a handler is loaded that may use the network.
pub(super) struct Network {
    handle: Handle,
    _stop: DropGuard,
}

/// What becomes of a name: the system's resolver, or in a test what stands for it.
pub(super) type Resolve = fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("`{host}` is not granted")]
    NotGranted { host: String },
    #[error("`{host}` leads to {address}, which is not public")]
    Prohibited { host: String, address: IpAddr },
    #[error("`{host}` is not known")]
    Unknown { host: String },
    #[error("it took too long")]
    TimedOut,
    #[error("{0}")]
    Io(io::Error),
}

// === impl Network ===

impl Network {
    pub(super) fn start() -> io::Result<Network> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS_MAX).build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("network".to_owned());
        // The thread is not joined: a look-up may hold it for long after nobody wants to know any more.
        drop(thread.spawn(move || {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?);
        Ok(Network { handle, _stop: stop.drop_guard() })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Asks the system.
pub(super) fn system(name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) })
}

/// Where a host may be reached. `private` says whether a name may lead to an address that is not public.
pub(super) async fn addresses(host: &Host, private: bool, resolve: Resolve) -> Result<Vec<IpAddr>, Unreachable> {
    match host {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => {
            // Its text may say more than a guest is to know of the machine's resolver.
            let found = resolve(name.clone()).await.map_err(|_| Unreachable::Unknown { host: name.clone() })?;
            allowed(name, private, found)
        }
    }
}

/// All addresses of a name, if a handler may have all of them: a name that leads outside and inside is a trick.
pub(super) fn allowed(name: &str, private: bool, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Unreachable> {
    let mut addresses: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
    if let Some(address) = addresses.iter().copied().find(|address| !may_lead_to(private, *address)) {
        return Err(Unreachable::Prohibited { host: name.to_owned(), address });
    }
    if addresses.is_empty() {
        return Err(Unreachable::Unknown { host: name.to_owned() });
    }
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

/// Connects to the first of the addresses that answers, each having its share of the time.
pub(super) async fn connect(addresses: &[IpAddr], port: u16, wait: Duration) -> Result<TcpStream, Unreachable> {
    let share = wait / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = Unreachable::TimedOut;
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(Unreachable::Io)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = Unreachable::Io(error),
            Err(_) => last = Unreachable::TimedOut,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(private: bool, found: &[&str], expected: Option<&[&str]>) {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(allowed("a.b", private, parse(found)).ok(), expected.map(parse), "{found:?}");
    }

    #[test]
    fn name_that_leads_anywhere_it_may_not_leads_nowhere() {
        check(false, &["8.8.8.8", "2001:4860:4860::8888"], Some(&["8.8.8.8", "2001:4860:4860::8888"]));
        check(false, &["::ffff:8.8.8.8"], Some(&["8.8.8.8"]));
        check(false, &["127.0.0.1"], None);
        check(false, &["8.8.8.8", "127.0.0.1"], None);
        check(false, &["2001:4860:4860::8888", "::ffff:10.0.0.1"], None);
        check(false, &["8.8.8.8", "64:ff9b::a9fe:a9fe"], None);
        check(false, &[], None);
        check(true, &["8.8.8.8", "127.0.0.1", "fd00::1"], Some(&["8.8.8.8", "127.0.0.1", "fd00::1"]));
        check(true, &["0.0.0.0"], None);
        check(true, &["224.0.0.1"], None);
    }

    /// A resolver that knows one name.
    fn known(name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let found = if name == "a.b" { vec![IpAddr::from([127, 0, 0, 1])] } else { Vec::new() };
        Box::pin(std::future::ready(Ok(found)))
    }

    #[tokio::test]
    async fn address_that_was_granted_is_not_looked_up_and_a_name_is_by_what_it_leads_to() {
        let (name, address) = (Host::parse("a.b").unwrap(), Host::parse("127.0.0.1").unwrap());
        assert!(addresses(&name, false, known).await.unwrap_err().to_string().contains("127.0.0.1"));
        assert_eq!(addresses(&name, true, known).await.unwrap(), addresses(&address, false, known).await.unwrap());
        let unknown = Host::parse("c.d").unwrap();
        assert_eq!(addresses(&unknown, true, known).await.unwrap_err().to_string(), "`c.d` is not known");
    }
}
