//! TLS: the guest reaches whom the machine's certificates vouch for, and nobody else.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::Reach;
use crate::support::{Server, project};

/// A server whose certificate is for `localhost`, and its port. It serves until the test's process ends.
pub(crate) fn server() -> u16 {
    let file = |name: &str| project(format!("tests/tls/{name}"));
    let certificate = CertificateDer::from_pem_file(file("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            // Whoever does not like the certificate hangs up.
            std::thread::spawn(move || drop(serve(stream, config)));
        }
    });
    port
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")?;
        }
    }
}

/// A guest that may send requests to `host`, where the machine trusts the authority of that file.
fn client(host: &str, port: u16, authority: &str) -> Reach {
    let url = format!("https://{host}:{port}");
    let reach = Reach::new(&format!("http = [{{ url = '{url}', private = true }}]"));
    let authority = project(format!("tests/tls/{authority}")).display().to_string();
    reach.allow(&format!("'reach: http {url} private'")).variable("SSL_CERT_FILE", authority)
}

#[test]
fn server_with_a_good_certificate_is_reached_and_one_with_another_name_or_authority_is_not() {
    let port = server();
    let get = |host: &str| json!([{ "get": ["https", format!("{host}:{port}"), "/"] }]);
    assert_eq!(client("localhost", port, "ca.pem").steps(get("localhost")), ["ok: 200 secret"]);
    for (host, authority, why) in
        [("127.0.0.1", "ca.pem", "not valid for name"), ("localhost", "stranger.pem", "UnknownIssuer")]
    {
        let said = client(host, port, authority).invoke("reach", &json!({ "steps": get(host) }));
        assert_eq!(
            said.json["result"],
            json!(["err: ErrorCode::TlsCertificateError"]),
            "{} {}",
            said.json,
            said.stderr
        );
        let line = said.json["log"][0]["line"].as_str().unwrap_or_default();
        assert!(
            line.starts_with("denied: http: the certificate of the server is not accepted") && line.contains(why),
            "{line}"
        );
        assert_eq!(said.json["denied"], 1);
    }
}

#[test]
fn server_that_speaks_no_tls_is_not_spoken_to_without_it() {
    let server = Server::start();
    let said = client("localhost", server.port, "ca.pem")
        .steps(json!([{ "get": ["https", format!("localhost:{}", server.port), "/"] }]));
    assert_eq!((said, server.requests()), (vec!["err: ErrorCode::TlsProtocolError".to_owned()], 0));
}
