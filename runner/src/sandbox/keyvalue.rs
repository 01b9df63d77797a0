//! `wasi:keyvalue`: a handler's own state, where that is granted. Both drafts that there are reach the same.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, Resource};

use super::host::Host;
use crate::state::{Draft, Refused, Size, StateStore};

mod draft2;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
    });
}

use self::bindings::wasi::keyvalue::store::{Error, KeyResponse};
use self::bindings::wasi::keyvalue::{atomics, store};

/// The state of one handler, for its attempts.
#[derive(Debug, Clone)]
pub struct HandlerState {
    /// Where it is.
    pub store: Arc<dyn StateStore>,
    /// The handler's name.
    pub handler: Arc<str>,
    /// How much it may be.
    pub quota: Size,
}

/// What a guest holds of its state. There is one, by whatever handle.
#[expect(unreachable_pub, reason = "the bindings export it")]
pub struct Bucket;

type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// What a handler may import whose manifest grants it state.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    store::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    atomics::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    draft2::link(linker)
}

impl store::Host for Host {
    fn open(&mut self, name: String) -> Answer<Resource<Bucket>> {
        self.count_call()?;
        Ok(Bucket::named(&name).ok_or(Error::NoSuchStore))
    }
}

impl store::HostBucket for Host {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        ask(self, |state| state.get(&key))
    }

    fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        ask(self, |state| state.set(key, value))
    }

    fn delete(&mut self, _: Resource<Bucket>, key: String) -> Answer<()> {
        ask(self, |state| state.delete(key))
    }

    fn exists(&mut self, _: Resource<Bucket>, key: String) -> Answer<bool> {
        ask(self, |state| state.has(&key))
    }

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<u64>) -> Answer<KeyResponse> {
        ask(self, |state| {
            let (keys, cursor) = state.keys(cursor.unwrap_or(0))?;
            Ok(KeyResponse { keys, cursor })
        })
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl atomics::Host for Host {
    fn increment(&mut self, _: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        ask(self, |state| state.increment(key, delta))
    }
}

impl Host {
    /// What its handler's state answers; none where it has none.
    fn with_state<T>(
        &mut self,
        ask: impl FnOnce(&mut Draft) -> Result<T, Refused>,
    ) -> wasmtime::Result<Option<Result<T, Refused>>> {
        self.count_call()?;
        match self.state().map(ask) {
            // The attempt is interrupted: a sick file is nobody's failure.
            Some(Err(Refused::Unreadable(error))) => Err(std::io::Error::other(error.to_string()).into()),
            answer => Ok(answer),
        }
    }
}

fn ask<T>(host: &mut Host, ask: impl FnOnce(&mut Draft) -> Result<T, Refused>) -> Answer<T> {
    Ok(match host.with_state(ask)? {
        None => Err(Error::AccessDenied),
        Some(answer) => answer.map_err(|refused| Error::Other(refused.to_string())),
    })
}

impl Bucket {
    /// The one that there is, by either of its names.
    fn named(name: &str) -> Option<Resource<Bucket>> {
        matches!(name, "" | "default").then(|| Resource::new_own(0))
    }
}
