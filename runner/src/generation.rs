//! Names one version of a handler.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// One version of a handler: the pair of its component and its manifest.
///
/// Its name is the first twelve hexadecimal digits of the digest of both, so that it is the same after a restart and in
/// another runner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(Arc<str>);

impl Generation {
    /// The name of the pair of a component and a manifest, both as found.
    pub fn of(component: &[u8], manifest: Option<&[u8]>) -> Generation {
        let mut pair = Sha256::new();
        pair.update(Sha256::digest(component));
        if let Some(manifest) = manifest {
            pair.update(Sha256::digest(manifest));
        }
        Generation(hex(&pair.finalize()[..6]).into())
    }

    /// Reads a name that was written before.
    pub fn named(name: &str) -> Generation {
        Generation(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Generation, D::Error> {
        String::deserialize(deserializer).map(|name| Generation(name.into()))
    }
}
