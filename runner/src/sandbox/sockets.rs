//! Connections of guests: `wasi:sockets`, to where their handler's grants allow. No listening, no UDP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, HostNetwork, IpAddress, IpAddressFamily, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::TcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::UdpSocket;
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView};

use super::denials::Denials;
use super::host::Host;
use crate::grants::{self, Grants, TcpGrant, may_lead_to};

/// The most connections that an attempt makes: each is one of the process's open files.
const SOCKETS_MAX: u32 = 64;

/// The most addresses of names that an attempt learns.
const KNOWN_MAX: usize = 256;

/// What one attempt knows of the network.
pub(super) struct Sockets {
    grants: Arc<Grants>,
    denials: Arc<Denials>,
    /// Where granted names led, with the port that is granted with the name.
    known: Arc<Mutex<Vec<SocketAddr>>>,
    /// The names that are asked for, by the resource that asks.
    asked: HashMap<u32, String>,
    made: u32,
}

/// Puts what looks at the grants in the place of what would not.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    ip_name_lookup::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    tcp_create_socket::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    udp_create_socket::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    linker.allow_shadowing(false);
    Ok(())
}

// === impl Sockets ===

impl Sockets {
    /// Opens the network of an attempt as far as its grants go.
    pub(super) fn new(grants: &Arc<Grants>, denials: &Arc<Denials>, builder: &mut WasiCtxBuilder) -> Sockets {
        let known: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        if !grants.tcp.is_empty() {
            let (grants, denials, known) = (Arc::clone(grants), Arc::clone(denials), Arc::clone(&known));
            builder.allow_tcp(true).allow_ip_name_lookup(true);
            builder.socket_addr_check(move |address, purpose| {
                let may = may_use(&grants.tcp, &known, address, purpose);
                if !may {
                    denials.deny(format_args!("tcp: {purpose:?} {address} is not granted"));
                }
                Box::pin(std::future::ready(may))
            });
        }
        let (grants, denials) = (Arc::clone(grants), Arc::clone(denials));
        Sockets { grants, denials, known, asked: HashMap::new(), made: 0 }
    }

    /// Another job begins: connections stay, and the next ones are counted anew.
    pub(super) fn begin(&mut self) {
        self.made = 0;
    }

    fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a TcpGrant> {
        self.grants.tcp.iter().filter(move |grant| matches!(&grant.host, grants::Host::Name(of) if of == name))
    }

    /// Takes down that a name leads to an address, if it may.
    fn learn(&self, name: &str, address: IpAddr) -> bool {
        if !self.of_name(name).any(|grant| may_lead_to(grant.private, address)) {
            self.denials.deny(format_args!("tcp: `{name}` leads to {address}, which is not public"));
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for grant in self.of_name(name).filter(|grant| may_lead_to(grant.private, address)) {
            let address = SocketAddr::new(address, grant.port);
            if !known.contains(&address) && known.len() < KNOWN_MAX {
                known.push(address);
            }
        }
        true
    }
}

/// Whether a guest may do this with an address.
fn may_use(granted: &[TcpGrant], known: &Mutex<Vec<SocketAddr>>, address: SocketAddr, purpose: SocketAddrUse) -> bool {
    match purpose {
        // Whoever connects is bound to some address first.
        SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
        SocketAddrUse::TcpConnect => {
            let is_granted =
                |grant: &TcpGrant| grant.host == grants::Host::Address(address.ip()) && grant.port == address.port();
            granted.iter().any(is_granted) || known.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
        }
        _ => false,
    }
}

impl ip_name_lookup::Host for Host {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        let (sockets, denials) = self.sockets_of_attempt();
        let name = match grants::Host::parse(&name) {
            Ok(grants::Host::Name(name)) if sockets.of_name(&name).next().is_some() => name,
            _ => {
                denials.deny(format_args!("tcp: looking up a name that is not granted"));
                return Err(ErrorCode::AccessDenied.into());
            }
        };
        let stream = self.sockets().resolve_addresses(network, name.clone())?;
        self.sockets_of_attempt().0.asked.insert(stream.rep(), name);
        Ok(stream)
    }
}

impl HostResolveAddressStream for Host {
    fn resolve_next_address(&mut self, stream: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let rep = stream.rep();
        let address = self.sockets().resolve_next_address(stream)?;
        let sockets = self.sockets_of_attempt().0;
        let name = sockets.asked.get(&rep).map_or("", String::as_str);
        match address {
            Some(address) if !sockets.learn(name, plain(address)) => Err(ErrorCode::AccessDenied.into()),
            address => Ok(address),
        }
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.sockets_of_attempt().0.asked.remove(&stream.rep());
        HostResolveAddressStream::drop(&mut self.sockets(), stream)
    }
}

/// What the others refer to; there is nothing to deny.
impl network::Host for Host {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets(), error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl HostNetwork for Host {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        HostNetwork::drop(&mut self.sockets(), network)
    }
}

impl tcp_create_socket::Host for Host {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let (sockets, denials) = self.sockets_of_attempt();
        if sockets.grants.tcp.is_empty() {
            denials.deny(format_args!("tcp: nothing is granted"));
            return Err(ErrorCode::AccessDenied.into());
        }
        sockets.made += 1;
        if sockets.made > SOCKETS_MAX {
            denials.deny(format_args!("tcp: more than {SOCKETS_MAX} connections in one attempt"));
            return Err(ErrorCode::NewSocketLimit.into());
        }
        self.sockets().create_tcp_socket(family)
    }
}

impl udp_create_socket::Host for Host {
    async fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.sockets_of_attempt().1.deny(format_args!("udp: there is no grant for it"));
        Err(ErrorCode::AccessDenied.into())
    }
}

fn plain(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}
