//! Which files a runner needs, as its configuration tells. Pure, but for the environment that it is given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{Config, Listen, Place};

/// What names, addresses, certificates, time zones and libraries are looked up in. Single files of these would not do: whoever
/// writes `/etc/resolv.conf` puts a new one in its place, which would be out of reach.
const OF_THE_SYSTEM: [&str; 16] = [
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/proc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sys",
    "/usr",
    "/var/lib/ca-certificates",
];

/// Files and folders that a runner may open; of folders, all that is in them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Paths {
    /// To be read, of the system: absent ones are no loss.
    pub(super) system: Vec<PathBuf>,
    /// To be read.
    pub(super) read: Vec<PathBuf>,
    /// To be read and written.
    pub(super) write: Vec<PathBuf>,
}

// === impl Paths ===

impl Paths {
    /// What a runner of this configuration needs; `variable` answers from its environment.
    pub(super) fn of(config: &Config, variable: &dyn Fn(&str) -> Option<OsString>) -> Paths {
        let mut paths = Paths { system: OF_THE_SYSTEM.map(PathBuf::from).into(), ..Paths::default() };
        paths.system.extend(variable("SSL_CERT_FILE").map(|file| folder_of(Path::new(&file))));
        let folders = variable("SSL_CERT_DIR");
        paths.system.extend(folders.iter().flat_map(std::env::split_paths));
        paths.write.push("/dev/null".into());
        paths.write.push(config.state_dir.clone());
        match &config.queue.place {
            // Beside the file are its log and its shared memory, which come and go.
            Place::File(file) => {
                paths.write.push(folder_of(file));
                paths.write.extend(file.canonicalize().map(|file| folder_of(&file)));
            }
            Place::Kafka(_) => paths.read.extend(files_of_kafka(config)),
        }
        paths.read.extend(config.admin.token_file.as_deref().map(folder_of));
        paths.write.extend(config.admin.listen.iter().filter_map(|listen| match listen {
            Listen::Unix(socket) => Some(folder_of(socket)),
            Listen::Tcp(_) => None,
        }));
        paths.read.push(config.handlers.dir.clone());
        paths.read.extend(config.admin.token_file.as_deref().map(folder_of));
        paths.write.extend(config.admin.listen.iter().filter_map(|listen| match listen {
            Listen::Unix(socket) => Some(folder_of(socket)),
            Listen::Tcp(_) => None,
        }));
        let (read, write) = config.handlers.allow.all_folders();
        paths.read.extend(read);
        paths.write.extend(write);
        paths.read.extend(config.hardening.read.iter().cloned());
        paths.write.extend(config.hardening.write.iter().cloned());
        paths
    }
}

/// The folders of the files that the client of Kafka is told of: certificates, keys, passwords and tokens, which are replaced by
/// others of the same name.
fn files_of_kafka(config: &Config) -> impl Iterator<Item = PathBuf> {
    let kafka = &config.queue.kafka;
    let is_file = |name: &str| name.ends_with(".location") || name.ends_with(".file") || name.ends_with(".keytab");
    let named = kafka.client.iter().filter(move |(name, value)| is_file(name) && *value != "probe");
    named.map(|(_, value)| Path::new(value)).chain(kafka.oauth_token_file.as_deref()).map(folder_of)
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};

    fn paths(text: &str, variables: &[(&str, &str)]) -> Paths {
        let environment = Environment { variables: [].into(), cores: 2 };
        let file = (Path::new("sandhog.toml"), text);
        let config = Config::resolve(&Flags::default(), &environment, Some(file)).expect("the text is sound");
        let found = |name: &str| variables.iter().find(|(found, _)| *found == name).map(|(_, value)| value.into());
        Paths::of(&config, &found)
    }

    fn named(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn runner_of_a_file_writes_its_folder_and_its_state_and_reads_its_handlers() {
        let paths = paths("queue.url = 'sqlite:/no/such/jobs.db'\nhandlers.dir = '/srv/handlers'", &[]);
        assert_eq!(named(&paths.write), ["/dev/null", "/no/such/jobs.db.state", "/no/such"]);
        assert_eq!(named(&paths.read), ["/srv/handlers"]);
    }

    #[test]
    fn what_the_operator_names_is_in_reach() {
        let text = "hardening = { read = ['/srv/current'], write = '/srv/out' }\n\
                    handlers.allow = ['resize: read /srv/assets', '*: write /srv/thumbs', '*: variable HOME']";
        let paths = paths(text, &[("SSL_CERT_FILE", "/opt/ca/bundle.pem"), ("SSL_CERT_DIR", "/opt/a:/opt/b")]);
        assert!(named(&paths.read).ends_with(&["/srv/assets", "/srv/current"]), "{paths:?}");
        assert!(named(&paths.write).ends_with(&["/srv/thumbs", "/srv/out"]), "{paths:?}");
        assert!(named(&paths.system).ends_with(&["/opt/ca", "/opt/a", "/opt/b"]), "{paths:?}");
    }

    #[test]
    fn token_and_socket_of_the_http_api_are_in_reach() {
        let text = "[admin]\nlisten = ['127.0.0.1:0', 'unix:/run/sandhog/api.sock']\ntoken_file = '/run/secrets/token'";
        let paths = paths(text, &[]);
        assert!(named(&paths.write).contains(&"/run/sandhog"), "{paths:?}");
        assert!(named(&paths.read).contains(&"/run/secrets"), "{paths:?}");
    }

    #[test]
    fn files_of_the_client_of_kafka_are_in_reach_with_those_that_replace_them() {
        let text = "queue.url = 'kafka://localhost/jobs'\n\
                    queue.kafka.oauth_token_file = '/run/secrets/token/kafka'\n\
                    [queue.kafka.client]\n\
                    ssl.ca.location = '/opt/ca/ca.pem'\n\
                    sasl.password.file = 'password'\n\
                    client.id = '/no/file'";
        let paths = paths(text, &[]);
        assert_eq!(named(&paths.read), [".", "/opt/ca", "/run/secrets/token", "./handlers"]);
        assert_eq!(named(&paths.write), ["/dev/null", "./sandhog.state"]);
    }
}
