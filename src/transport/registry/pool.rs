//! The registries of a run: the repositories of one host share connections, tokens and limits.

use super::Registry;
use super::http::window::HostWindow;
use super::options::Access;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::progress::Watch;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The registries that a run has used. Clones share them.
#[derive(Clone, Default)]
pub struct RegistryPool(Arc<Mutex<HashMap<String, PooledHost>>>);

/// One host.
#[derive(Default)]
struct PooledHost {
    /// All accesses share it: the host limits its client, not a login.
    window: Arc<HostWindow>,
    /// One for each access.
    registries: Vec<Arc<Registry>>,
}

impl RegistryPool {
    /// Returns the registry at `host`, for all calls with an equal `access`. It reports to `watch`: registries that
    /// differ only in that share everything else.
    ///
    /// Fails with `Usage` if `host` is not a valid `HOST[:PORT]`.
    pub fn registry(
        &self,
        host: &str,
        access: Access,
        watch: &Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Arc<Registry>> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = hosts.entry(host.to_owned()).or_default();
        if let Some(known) = pooled.registries.iter().find(|known| known.client.access == access) {
            return Ok(known.reporting_to(watch));
        }
        let window = pooled.window.clone();
        let registry = Registry::with_window(host, access, watch.clone(), cancel.clone(), window)?;
        pooled.registries.push(registry.clone());
        Ok(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Credentials, Secret};
    use super::*;
    use crate::progress::Silent;

    fn login(user: &str) -> Access {
        let password = Secret::new("p");
        Access { credentials: Credentials::Password { user: user.to_owned(), password }, ..Access::default() }
    }

    fn shares_tokens(one: &Registry, other: &Registry) -> bool {
        one.client.shares_state_with(&other.client)
    }

    #[test]
    fn equal_accesses_to_a_host_are_one_client_and_two_logins_are_two() {
        let (pool, watch, cancel) = (RegistryPool::default(), Arc::new(Silent) as Arc<dyn Watch>, Cancel::default());
        let open = |host: &str, access| pool.clone().registry(host, access, &watch, &cancel).unwrap();
        let first = open("r.lan", login("a"));
        assert!(Arc::ptr_eq(&first, &open("r.lan", login("a"))));
        for (host, access) in [
            ("r.lan", login("b")),
            ("r.lan", Access { namespace: Some("docker.io".to_owned()), ..login("a") }),
            ("r.lan:5000", login("a")),
        ] {
            let other = open(host, access);
            assert!(!shares_tokens(&first, &other), "{host}");
            assert_eq!(Arc::ptr_eq(&first.client.window, &other.client.window), host == "r.lan");
        }
    }

    #[test]
    fn another_destination_shares_the_client_and_has_its_own_messages() {
        let (pool, cancel) = (RegistryPool::default(), Cancel::default());
        let watches: [Arc<dyn Watch>; 2] = [Arc::new(Heard::default()), Arc::new(Heard::default())];
        let [one, other] = watches.each_ref().map(|watch| pool.registry("r.lan", login("a"), watch, &cancel).unwrap());
        assert!(shares_tokens(&one, &other) && !Arc::ptr_eq(&one, &other));
        assert!(std::ptr::addr_eq(Arc::as_ptr(&other.client.watch), Arc::as_ptr(&watches[1])));
    }

    /// Not of size zero, so that two of them have two addresses.
    #[derive(Default)]
    struct Heard(#[allow(dead_code)] u8);

    impl Watch for Heard {
        fn event(&self, _: crate::progress::Event<'_>) {}
    }
}
