//! The second draft of `wasi:keyvalue`: the same state, with compare-and-swap.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiView;

use super::{Bucket, Host};
use crate::state::{Draft, Refused};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-draft2",
        world: "wasi:keyvalue/imports",
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::sandbox::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

use self::bindings::wasi::keyvalue::atomics::{self, CasError};
use self::bindings::wasi::keyvalue::store::{self, Error, KeyResponse};

/// What a guest saw of a key, and would put something else in its place.
#[expect(unreachable_pub, reason = "the bindings export it")]
pub struct Cas {
    key: String,
    seen: Option<Vec<u8>>,
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    store::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)?;
    atomics::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)
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

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        let Ok(from) = cursor.as_deref().unwrap_or("0").parse() else {
            return Ok(Err(Error::Other("the cursor is none that `list-keys` answered".to_owned())));
        };
        ask(self, |state| {
            let (keys, next) = state.keys(from)?;
            Ok(KeyResponse { keys, cursor: next.map(|next| next.to_string()) })
        })
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl atomics::Host for Host {
    fn increment(&mut self, _: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        ask(self, |state| state.increment(key, delta))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { key, seen } = self.ctx().table.delete(cas)?;
        match ask(self, |state| state.swap(key.clone(), &seen, value))? {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Ok(Err(match self.look(key)? {
                Ok(cas) => CasError::CasFailed(cas),
                Err(error) => CasError::StoreError(error),
            })),
            Err(error) => Ok(Err(CasError::StoreError(error))),
        }
    }
}

impl atomics::HostCas for Host {
    fn new(&mut self, _: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        self.look(key)
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        self.count_call()?;
        Ok(Ok(self.ctx().table.get(&cas)?.seen.clone()))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.ctx().table.delete(cas)?;
        Ok(())
    }
}

impl Host {
    fn look(&mut self, key: String) -> Answer<Resource<Cas>> {
        match ask(self, |state| state.get(&key))? {
            Ok(seen) => Ok(Ok(self.ctx().table.push(Cas { key, seen })?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

fn ask<T>(host: &mut Host, ask: impl FnOnce(&mut Draft) -> Result<T, Refused>) -> Answer<T> {
    Ok(match host.with_state(ask)? {
        None => Err(Error::AccessDenied),
        Some(answer) => answer.map_err(|refused| Error::Other(refused.to_string())),
    })
}
