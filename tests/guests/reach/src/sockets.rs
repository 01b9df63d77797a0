//! Connections, by `wasi:sockets`.

use wasip2::io::streams::StreamError;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

type Said = Result<String, String>;

pub(crate) fn parse(address: &str) -> Result<IpAddress, String> {
    let address: std::net::IpAddr = address.parse().map_err(|_| "no address")?;
    Ok(match address {
        std::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            IpAddress::Ipv4((a, b, c, d))
        }
        std::net::IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            IpAddress::Ipv6((a, b, c, d, e, f, g, h))
        }
    })
}

pub(crate) fn resolve(host: &str) -> Result<Vec<IpAddress>, String> {
    let stream = resolve_addresses(&instance_network(), host).map_err(name)?;
    let mut addresses = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(address)) => addresses.push(address),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(error) => return Err(name(error)),
        }
    }
}

pub(crate) fn connect(address: IpAddress, port: u16) -> Said {
    let (socket, address) = socket(address, port)?;
    socket.start_connect(&instance_network(), address).map_err(name)?;
    let (input, output) = loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            done => break done.map_err(name)?,
        }
    };
    output.blocking_write_and_flush(b"hello\n").map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    loop {
        match input.blocking_read(1 << 16) {
            Ok(read) => bytes.extend(read),
            Err(StreamError::Closed) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

pub(crate) fn listen(port: u16) -> Said {
    let (socket, address) = socket(IpAddress::Ipv4((127, 0, 0, 1)), port)?;
    socket.start_bind(&instance_network(), address).map_err(name)?;
    socket.finish_bind().map_err(name)?;
    socket.start_listen().map_err(name)?;
    socket.finish_listen().map_err(name)?;
    Ok("listening".to_owned())
}

pub(crate) fn udp() -> Said {
    create_udp_socket(IpAddressFamily::Ipv4).map_err(name)?;
    Ok("made".to_owned())
}

fn socket(address: IpAddress, port: u16) -> Result<(TcpSocket, IpSocketAddress), String> {
    let (family, address) = match address {
        IpAddress::Ipv4(address) => (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })),
        IpAddress::Ipv6(address) => {
            let address = Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    };
    Ok((create_tcp_socket(family).map_err(name)?, address))
}

fn name(error: ErrorCode) -> String {
    error.name().to_owned()
}
