//! Where a grant lets a handler go: hosts, and what of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::settings::{self, Raw};

/// A host, by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, in lower case, without a dot at its end.
    Name(String),
    /// An address. One of IPv4 is never held as one of IPv6.
    Address(IpAddr),
}

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Under TLS.
    Https,
}

/// Which paths of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// All of them.
    All,
    /// Those that begin with it; it ends with a slash.
    Below(String),
    /// This one.
    One(String),
}

/// Where HTTP requests may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// How.
    pub scheme: Scheme,
    /// To whom.
    pub host: Host,
    /// To which port.
    pub port: u16,
    /// To which paths.
    pub paths: Paths,
    /// Whether the host's name may lead to an address that is not public.
    pub private: bool,
}

/// Where TCP connections may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpGrant {
    /// To whom.
    pub host: Host,
    /// To which port.
    pub port: u16,
    /// Whether the host's name may lead to an address that is not public.
    pub private: bool,
}

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

// === impl Host ===

impl Host {
    /// Reads a host as it stands in a URL, an address of IPv6 in brackets. What another program might take for another host
    /// is refused.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a fragment that fits behind it.
    pub fn parse(text: &str) -> Result<Host, String> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = inner.parse().map_err(|_| "is no address of IPv6".to_owned())?;
            return match address.to_ipv4_mapped() {
                Some(plain) => Err(format!("is an IPv4 address in the clothes of IPv6: write `{plain}`")),
                None => Ok(Host::Address(address.into())),
            };
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Address(address.into()));
        }
        if text.ends_with('.') {
            return Err("ends with a dot".to_owned());
        }
        let is_label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(plain)
        };
        if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
            return Err("is no name of a host".to_owned());
        }
        let name = text.to_ascii_lowercase();
        // System resolvers take `2130706433`, `0x7f.1` and `0177.0.0.1` for addresses.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if hex || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is neither a name nor an address of four plain decimal numbers".to_owned());
        }
        Ok(Host::Name(name))
    }
}

impl Host {
    /// Reads `HOST` or `HOST:PORT`, as it stands in a URL.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a fragment that fits behind the host.
    pub fn parse_with_port(text: &str) -> Result<(Host, Option<u16>), String> {
        let at = text.rfind(':').filter(|at| !text[*at..].contains(']'));
        let (host, port) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        let host = Host::parse(host)?;
        let is_plain = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        match port.map(|port| Some(port).filter(is_plain).and_then(|port| port.parse().ok())) {
            None => Ok((host, None)),
            Some(None | Some(0)) => Err("has no port from 1 to 65535 behind its `:`".to_owned()),
            Some(port) => Ok((host, port)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

// === impl Scheme ===

impl Scheme {
    /// The scheme of a URL.
    pub fn parse(text: &str) -> Option<Scheme> {
        match text {
            _ if text.eq_ignore_ascii_case("http") => Some(Scheme::Http),
            _ if text.eq_ignore_ascii_case("https") => Some(Scheme::Https),
            _ => None,
        }
    }

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port where none is named.
    pub fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

// === impl Paths ===

impl Paths {
    fn parse(text: &str) -> Result<Paths, String> {
        if matches!(text, "" | "/" | "/*") {
            return Ok(Paths::All);
        }
        let (path, below) = text.strip_suffix('*').map_or((text, false), |path| (path, true));
        if !is_straight(path) || path.contains(['*', '?', '#']) || below && !path.ends_with('/') {
            return Err(format!("has the path `{text}`: write one like `/v1/items`, or `/v1/*` for all below it"));
        }
        Ok(if below { Paths::Below(path.to_owned()) } else { Paths::One(path.to_owned()) })
    }

    /// Whether a path is one of these.
    pub fn have(&self, path: &str) -> bool {
        match self {
            Paths::All => true,
            // What a server might resolve to another path is none of these.
            Paths::Below(root) => path.starts_with(root.as_str()) && is_straight(path),
            Paths::One(one) => path == one,
        }
    }

    fn include(&self, other: &Paths) -> bool {
        match (self, other) {
            (Paths::All, _) => true,
            (Paths::Below(_), Paths::All) => false,
            (Paths::Below(root), Paths::Below(path) | Paths::One(path)) => path.starts_with(root.as_str()),
            (Paths::One(one), Paths::One(path)) => one == path,
            (Paths::One(_), _) => false,
        }
    }
}

/// Whether a path leads where it seems to: a server has nothing in it to resolve or to decode that would change that.
fn is_straight(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%25", "\\", "//"].iter().any(|sign| lower.contains(sign));
    // Some servers cut a segment at its semicolon first.
    let name = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
    let plain = |byte: u8| byte.is_ascii_graphic();
    path.starts_with('/')
        && path.bytes().all(plain)
        && !hidden
        && !path.split('/').any(|segment| matches!(name(segment).as_str(), "." | ".."))
}

// === impl HttpGrant ===

impl HttpGrant {
    /// Reads a grant of a manifest: a URL, or a table of `url` and `private`.
    pub(crate) fn read(raw: &Raw) -> Result<HttpGrant, String> {
        let (url, private) = destination(raw, "url")?;
        let grant = HttpGrant::parse(&url).map_err(|fault| format!("`{}` {fault}", without_user(&url)))?;
        Ok(HttpGrant { private, ..grant })
    }

    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<HttpGrant, String> {
        let (scheme, rest) = url.split_once("://").ok_or("is no URL, as `https://HOST` is one")?;
        let scheme = Scheme::parse(scheme).ok_or("has a scheme other than `http` and `https`")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("has user information in it".to_owned());
        }
        let (host, port) = Host::parse_with_port(authority).map_err(|fault| format!("has a host that {fault}"))?;
        let port = port.unwrap_or(scheme.port());
        Ok(HttpGrant { scheme, host, port, paths: Paths::parse(path)?, private: false })
    }

    /// Whether a request is one of those that it grants.
    pub fn covers(&self, scheme: Scheme, host: &Host, port: u16, path: &str) -> bool {
        self.leads_to(scheme, host, port) && self.paths.have(path)
    }

    /// Whether it grants anything on this server.
    pub fn leads_to(&self, scheme: Scheme, host: &Host, port: u16) -> bool {
        self.scheme == scheme && self.host == *host && self.port == port
    }

    /// Whether it grants all that another does.
    pub(super) fn includes(&self, other: &HttpGrant) -> bool {
        self.leads_to(other.scheme, &other.host, other.port)
            && self.paths.include(&other.paths)
            && self.private >= other.private
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.port() {
            write!(f, ":{}", self.port)?;
        }
        match &self.paths {
            Paths::All => {}
            Paths::Below(root) => write!(f, "{root}*")?,
            Paths::One(path) => f.write_str(path)?,
        }
        f.write_str(if self.private { " private" } else { "" })
    }
}

// === impl TcpGrant ===

impl TcpGrant {
    /// Reads a grant of a manifest: `HOST:PORT`, or a table of `address` and `private`.
    pub(crate) fn read(raw: &Raw) -> Result<TcpGrant, String> {
        let (address, private) = destination(raw, "address")?;
        let grant = TcpGrant::parse(&address).map_err(|fault| format!("`{}` {fault}", without_user(&address)))?;
        Ok(TcpGrant { private, ..grant })
    }

    /// Reads `HOST:PORT`.
    pub(super) fn parse(text: &str) -> Result<TcpGrant, String> {
        let (host, port) = Host::parse_with_port(text).map_err(|fault| format!("has a host that {fault}"))?;
        let port = port.ok_or("names no port: write `HOST:PORT`")?;
        Ok(TcpGrant { host, port, private: false })
    }

    /// Whether it grants all that another does.
    pub(super) fn includes(&self, other: &TcpGrant) -> bool {
        self.host == other.host && self.port == other.port && self.private >= other.private
    }
}

impl fmt::Display for TcpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.host, self.port, if self.private { " private" } else { "" })
    }
}

/// A destination as it stands in a manifest: a text, or a table of it and of `private`.
fn destination(raw: &Raw, key: &str) -> Result<(String, bool), String> {
    let Raw::Fields(fields) = raw else { return Ok((settings::string(raw)?, false)) };
    if let Some(other) = fields.keys().find(|name| *name != key && *name != "private") {
        return Err(format!("has an unknown key `{other}`: `{key}` and `private` may stand there"));
    }
    let private = match fields.get("private") {
        None => false,
        Some(Raw::Bool(private)) => *private,
        Some(_) => return Err("has a `private` that is neither `true` nor `false`".to_owned()),
    };
    let text = fields.get(key).ok_or_else(|| format!("has a table without `{key}`"))?;
    Ok((settings::string(text)?, private))
}

/// What may be shown of a text that might have a password in it.
fn without_user(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(url: &str) -> HttpGrant {
        HttpGrant::parse(url).unwrap_or_else(|fault| panic!("`{url}` {fault}"))
    }

    fn covers(grant: &str, url: &str) -> bool {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let scheme = Scheme::parse(scheme).unwrap();
        let Ok((host, port)) = Host::parse_with_port(authority) else { return false };
        self::grant(grant).covers(scheme, &host, port.unwrap_or(scheme.port()), path)
    }

    #[test]
    fn what_is_granted_is_covered_and_a_hair_outside_is_not() {
        let all = "https://api.example.com";
        for url in ["https://api.example.com", "https://API.Example.COM/a/../b", "https://api.example.com:443/x"] {
            assert!(covers(all, url), "{url}");
        }
        for url in [
            "http://api.example.com",
            "https://api.example.com:444",
            "https://example.com",
            "https://www.api.example.com",
            "https://api.example.com.evil.org",
            "https://api.example.com.",
            "https://xapi.example.com",
        ] {
            assert!(!covers(all, url), "{url}");
        }
    }

    #[test]
    fn path_is_one_or_all_below_it() {
        let below = "http://127.0.0.1:9000/v1/*";
        assert!(covers(below, "http://127.0.0.1:9000/v1/") && covers(below, "http://127.0.0.1:9000/v1/a..b/c.d"));
        for path in [
            "",
            "/",
            "/v1",
            "/v2/",
            "/V1/a",
            "/v1/../admin",
            "/v1/./..",
            "/v1/%2e%2e/a",
            "/v1/%2E./a",
            "/v1/..%2fa",
            "/v1/..;x=1/a",
            "/v1/a\\..\\b",
            "/v1//a",
            "/v1/%252e%252e/",
        ] {
            assert!(!covers(below, &format!("http://127.0.0.1:9000{path}")), "{path}");
        }
        assert!(covers("http://a.b/v1", "http://a.b/v1") && !covers("http://a.b/v1", "http://a.b/v1/"));
    }

    #[test]
    fn host_that_another_program_would_read_otherwise_is_refused() {
        for host in [
            "",
            ".",
            "a..b",
            "a.",
            "127.0.0.1.",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.0x1",
            "127.0.0.256",
            "1.2.3.4.5",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[fe80::1%eth0]",
            "[::1",
            "::1",
            "a b",
            "a%2eb",
            "a\tb",
            "*.example.com",
            "exämple.com",
            "a:b",
            "a@b",
            "1.0x",
            "${HOST}",
        ] {
            assert!(Host::parse(host).is_err(), "{host:?} is {:?}", Host::parse(host));
        }
        assert_eq!(Host::parse("LOCALHOST"), Ok(Host::Name("localhost".to_owned())));
        assert_eq!(Host::parse("[0:0::1]").unwrap().to_string(), "[::1]");
        assert_eq!(Host::parse("127.0.0.1").unwrap(), Host::Address(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn url_that_is_no_grant_is_refused() {
        for url in [
            "api.example.com",
            "ftp://a.b",
            "https://user:secret@a.b",
            "https://a.b@c.d",
            "https://",
            "https:///a",
            "https://a.b:0",
            "https://a.b:65536",
            "https://a.b:",
            "https://a.b:+1",
            "https://a.b/x*",
            "https://a.b/*/c",
            "https://a.b/?q=1",
            "https://a.b?q",
            "https://a.b/v1/../*",
            "https://a.b/#f",
            "https://a.b\\c/",
        ] {
            assert!(HttpGrant::parse(url).is_err(), "{url}");
        }
        assert!(TcpGrant::parse("db.internal").is_err() && TcpGrant::parse("db.internal:0").is_err());
        assert_eq!(TcpGrant::parse("[::1]:5432").unwrap().to_string(), "[::1]:5432");
        let text = "https://user:secret@a.b";
        assert!(!HttpGrant::read(&Raw::Text(text.to_owned())).unwrap_err().contains("secret"));
    }

    #[test]
    fn wider_grant_includes_a_narrower_one_and_not_the_other_way_round() {
        for (wide, narrow) in [
            ("https://a.b", "https://a.b/v1/*"),
            ("https://a.b", "https://a.b/v1"),
            ("https://a.b/v1/*", "https://a.b/v1/x/*"),
            ("https://a.b/v1/*", "https://a.b/v1/x"),
        ] {
            assert!(grant(wide).includes(&grant(narrow)) && grant(wide).includes(&grant(wide)), "{wide} {narrow}");
            assert!(!grant(narrow).includes(&grant(wide)), "{wide} {narrow}");
        }
        let private = HttpGrant { private: true, ..grant("https://a.b") };
        assert!(private.includes(&grant("https://a.b")) && !grant("https://a.b").includes(&private));
    }

    #[test]
    fn grant_is_shown_as_it_is_written() {
        for url in ["https://a.b", "http://a.b:443", "http://[::1]:80/", "https://a.b/v1/*", "https://a.b/v1"] {
            let shown = grant(url).to_string();
            assert_eq!(grant(&shown), grant(url), "{url}");
        }
        assert_eq!(grant("HTTPS://A.b:443/").to_string(), "https://a.b");
    }
}
