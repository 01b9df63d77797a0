//! What a handler's grants become when it is loaded: folders that are open, values that are at hand.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};
use wasmtime_wasi_config::WasiConfigVariables;

use super::http::Client;
use super::network;
use super::refusal::LoadError;
use crate::grants::{self, Folder, Grants};
use crate::hardening;
use crate::limits::Limits;

/// What one handler may do, ready for use. Cheap to clone.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) grants: Arc<Grants>,
    pub(super) config: Arc<WasiConfigVariables>,
    pub(super) filesystem: WasiFilesystemCtx,
    /// There if HTTP is granted at all.
    pub(super) client: Option<Client>,
}

// === impl Granted ===

impl Granted {
    pub(super) fn open(grants: &Grants, limits: &Limits) -> Result<Granted, LoadError> {
        let grants = Arc::new(grants.clone());
        let values = grants.config.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let client = (!grants.http.is_empty()).then(|| Client::new(&grants, limits.http_wait, network::system));
        let client = client.transpose().map_err(|error| LoadError::Network { reason: error.to_string() })?;
        Ok(Granted { config: Arc::new(values.collect()), filesystem: open_folders(&grants)?, grants, client })
    }
}

/// Opens the folders, once for all attempts: whatever their names lead to later, it is these that were allowed.
fn open_folders(grants: &Grants) -> Result<WasiFilesystemCtx, LoadError> {
    let mut builder = WasiCtx::builder();
    let read = grants.read.iter().map(|folder| (folder, "read", FsPerms::ReadOnly));
    let write = grants.write.iter().map(|folder| (folder, "write", FsPerms::ReadWrite));
    for ((name, folder), what, perms) in read.chain(write) {
        let fault = |reason: String, hint| {
            let (name, path) = (name.clone(), folder.path.display().to_string());
            LoadError::Folder { name, path, reason, hint }
        };
        let not_allowed = |real: &Path| {
            let hint = grants::hint(&folder.handler, &format!("{what} {}", real.display()));
            fault("it is not allowed by the operator".to_owned(), Some(hint))
        };
        let (file, real) = open(&folder.path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => match folder.path.canonicalize() {
                // What nobody allowed is out of the runner's own reach too, which is not why.
                Ok(real) if !is_allowed(&real, folder) => not_allowed(&real),
                _ => fault(error.to_string(), hardening::hint()),
            },
            _ => fault(error.to_string(), None),
        })?;
        if !is_allowed(&real, folder) {
            return Err(not_allowed(&real));
        }
        builder.preopened_dir(entry(&file), name, perms).map_err(|error| fault(format!("{error:#}"), None))?;
    }
    Ok(builder.build().filesystem().clone())
}

/// Opens a folder, and says where it really is.
fn open(path: &Path) -> io::Result<(File, PathBuf)> {
    let flags = i32::try_from(OFlags::DIRECTORY.bits()).expect("a flag of open fits");
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let real = std::fs::read_link(entry(&file))?;
    Ok((file, real))
}

/// What leads to an open folder, wherever its name leads meanwhile.
fn entry(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn is_allowed(real: &Path, folder: &Folder) -> bool {
    folder.allowed.iter().filter_map(|allowed| allowed.canonicalize().ok()).any(|allowed| real.starts_with(allowed))
}
