//! The sockets that the API listens on: those that are configured, and one of the runner's own, by which commands find it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::StartError;
use super::connection::Stream;
use crate::config::{AdminConfig, Listen};

/// Where the sockets of the runners that share a state folder are. Whoever may look into it needs no token.
pub(crate) const FOLDER: &str = "admin";

/// How many connections the system holds until they are accepted: a crowd that comes at once is not to wait for its
/// packets to be sent again.
const BACKLOG: u32 = 4_096;

/// A socket that is listened on.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a socket, which goes with it.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

// === impl Door ===

impl Door {
    /// All of them: where somebody said where, each must be had.
    pub(super) fn open_all(config: &AdminConfig, state_dir: &Path) -> Result<Vec<Door>, StartError> {
        let mut doors = Vec::new();
        for listen in &config.listen {
            match Door::open(listen) {
                Ok(door) => {
                    tracing::info!(address = %door, "the HTTP API listens on {door}");
                    doors.push(door);
                }
                Err(error) if config.listen_is_set => {
                    return Err(StartError::Listen { listen: listen.to_string(), error });
                }
                Err(error) => tracing::warn!(
                    "the HTTP API does not listen on {listen}, which cannot be had: {error}; another runner may have it \
                     (`admin.listen` says another address, or `off`)"
                ),
            }
        }
        match Door::open_own(state_dir) {
            Ok(door) => doors.push(door),
            Err(error) => tracing::debug!(error = %error, "no socket for commands in `{}`", state_dir.display()),
        }
        Ok(doors)
    }

    fn open(listen: &Listen) -> io::Result<Door> {
        match listen {
            Listen::Tcp(address) => open_tcp(*address).map(Door::Tcp),
            Listen::Unix(path) => {
                let door = open_unix(path)?;
                // Who may use it besides is for the permissions of its folder, and its group, to say.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(door)
            }
        }
    }

    /// The runner's own. Its name is nobody else's, in a container with the same process ids neither.
    fn open_own(state_dir: &Path) -> io::Result<Door> {
        let folder = state_dir.join(FOLDER);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        remove_dead(&folder);
        let random = RandomState::new().hash_one(std::process::id());
        let path = folder.join(format!("{:08x}-{}.sock", random >> 32, std::process::id()));
        let door = open_unix(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(door)
    }

    /// Whether who comes through it was let in by the file system already.
    pub(super) fn is_trusted(&self) -> bool {
        matches!(self, Door::Unix(..))
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Door::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Door::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Door::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(error) => write!(f, "an address that cannot be told: {error}"),
            },
            Door::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
        }
    }
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else an address could not be had again for a minute after a runner ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket in a file. What a runner left that was killed is taken away; nothing else is.
fn open_unix(path: &Path) -> io::Result<Door> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    Ok(Door::Unix(bound?, SocketFile(path.to_owned())))
}

/// Whether it is a socket that nobody listens on.
fn is_dead(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

/// Takes away what killed runners left. What cannot be removed is in nobody's way.
fn remove_dead(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_dead(path)) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(error = %error, "cannot remove `{}`, which nobody listens on", path.display());
        }
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(error = %error, "cannot remove the socket `{}`", self.0.display());
        }
    }
}
