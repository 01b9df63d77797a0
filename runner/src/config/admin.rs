//! The settings of the HTTP API.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::settings::{Raw, Settings, string};

/// Settings of the HTTP API.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// Where it listens, beside the socket in the state folder.
    pub listen: Vec<Listen>,
    /// Whether somebody said so: an address that was asked for and cannot be had is an error.
    pub listen_is_set: bool,
    /// What a client must show over TCP.
    pub token: Option<Token>,
    /// The file that has it.
    pub token_file: Option<PathBuf>,
    /// Names, beside those of this machine, that a request may be addressed to.
    pub hosts: Vec<String>,
    /// The most connections at one time, over all addresses.
    pub connections: u32,
    /// The largest body of a request that is not a stream, in bytes.
    pub body_bytes_max: usize,
}

/// Where the HTTP API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address of this machine.
    Tcp(SocketAddr),
    /// A socket's file.
    Unix(PathBuf),
}

/// What a client must show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Fewer characters could be guessed.
const TOKEN_CHARS_MIN: usize = 16;

const DEFAULT_LISTEN: Listen = Listen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7676));

/// Beyond this, memory and files for connections are not free.
const CONNECTIONS: std::ops::RangeInclusive<u32> = 16..=65_536;

// === impl AdminConfig ===

impl AdminConfig {
    pub(super) fn read(settings: &mut Settings, body_bytes_max: usize) -> AdminConfig {
        let show_all = |listen: &Vec<Listen>| format!("{:?}", listen.iter().map(Listen::to_string).collect::<Vec<_>>());
        let listen = settings.read("admin.listen", vec![DEFAULT_LISTEN], parse_all, show_all);
        let token = |raw: &Raw| string(raw).and_then(Token::new).map(Some);
        let hidden = |token: &Option<Token>| token.as_ref().map_or_else(String::new, |_| "***".to_owned());
        // Room for an array of some hundred jobs, and for one job of the largest size.
        let body = settings.size("admin.body", (16 << 20).max(body_bytes_max as u64));
        AdminConfig {
            listen,
            listen_is_set: settings.origin("admin.listen").is_some(),
            token: settings.read("admin.token", None, token, hidden),
            token_file: settings.text_if_any("admin.token_file").map(PathBuf::from),
            hosts: settings.texts("admin.hosts", Vec::new()),
            connections: settings.whole("admin.connections", 512),
            body_bytes_max: usize::try_from(body).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn check(&self, settings: &mut Settings) {
        let has_token = self.token.is_some() || self.token_file.is_some();
        settings.require("admin.token_file", self.token.is_none() || self.token_file.is_none(), || {
            "is set, and `admin.token` as well".to_owned()
        });
        for listen in &self.listen {
            settings.require("admin.listen", has_token || listen.is_private(), || {
                format!(
                    "`{listen}` can be reached from elsewhere, and no token is asked for: set `admin.token_file` or \
                     `admin.token`, or listen on 127.0.0.1"
                )
            });
        }
        let connections = self.connections;
        settings.require("admin.connections", CONNECTIONS.contains(&connections), || {
            format!("{connections} is not from {} to {}", CONNECTIONS.start(), CONNECTIONS.end())
        });
    }
}

/// Reads a list of addresses. In one string there are commas between; an empty one turns the API off, as `off` does, since
/// an empty variable counts as not set.
fn parse_all(raw: &Raw) -> Result<Vec<Listen>, String> {
    let texts = match raw {
        Raw::List(items) => items.iter().map(string).collect::<Result<Vec<_>, _>>()?,
        raw => string(raw)?.split(',').map(str::to_owned).collect(),
    };
    let texts: Vec<&str> = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
    if texts == ["off"] {
        return Ok(Vec::new());
    }
    texts.into_iter().map(|text| Listen::parse(text).map_err(|fault| format!("`{text}` {fault}"))).collect()
}

// === impl Listen ===

impl Listen {
    fn parse(text: &str) -> Result<Listen, String> {
        match text.strip_prefix("unix:") {
            Some("") => return Err("names no file".to_owned()),
            Some(path) => return Ok(Listen::Unix(path.into())),
            None => {}
        }
        let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map(Listen::Tcp).map_err(|_| {
            "is no place to listen: write `IP:PORT`, like `127.0.0.1:7676` or `[::]:7676`, or `unix:FILE`".to_owned()
        })
    }

    /// Whether nobody reaches it from another machine.
    pub fn is_private(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Token ===

impl Token {
    /// Takes what can be sent in a header and is not guessed.
    ///
    /// # Errors
    ///
    /// A fragment that fits behind where the token stood. Nothing of the token is in it.
    pub fn new(text: String) -> Result<Token, String> {
        if text.len() < TOKEN_CHARS_MIN {
            return Err(format!(
                "is a token of {} characters: at least {TOKEN_CHARS_MIN} are wanted, as `openssl rand -hex 32` makes them",
                text.len()
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a character in it that no token may have: letters, digits and signs".to_owned());
        }
        Ok(Token(text))
    }

    /// Its bytes, to be compared in constant time.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let read = |text: &str| {
            parse_all(&Raw::Text(text.to_owned())).map(|all| all.iter().map(Listen::to_string).collect::<Vec<_>>())
        };
        let of = |all: &[&str]| Ok(all.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(read("127.0.0.1:7676"), of(&["127.0.0.1:7676"]));
        assert_eq!(read("localhost:1, unix:/run/s.sock"), of(&["127.0.0.1:1", "unix:/run/s.sock"]));
        assert_eq!(read("[::1]:80"), of(&["[::1]:80"]));
        assert_eq!((read(""), read("off")), (of(&[]), of(&[])));
        for text in ["7676", "example.org:80", "unix:", "127.0.0.1", "off,off"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_and_sockets_are_private() {
        let private = |text: &str| Listen::parse(text).expect(text).is_private();
        assert!(private("127.0.0.1:1") && private("127.9.9.9:1") && private("[::1]:1") && private("unix:/x"));
        assert!(private("[::ffff:127.0.0.1]:1"));
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!private(text), "{text}");
        }
    }

    #[test]
    fn token_that_could_be_guessed_or_not_be_sent_is_none_and_none_is_shown() {
        let token = Token::new("0123456789abcdef".to_owned()).expect("it is long enough");
        assert_eq!(format!("{token:?}"), "Token(***)");
        for text in ["", "short", "0123456789 abcdef", "0123456789abcde\u{e9}"] {
            let fault = Token::new(text.to_owned()).expect_err(text);
            assert!(text.is_empty() || !fault.contains(text), "{fault}");
        }
    }
}
