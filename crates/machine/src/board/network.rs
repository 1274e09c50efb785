//! Wires: back ends and filters on one end, NICs on the other.

use std::collections::HashMap;
use std::sync::Arc;

use network::pcap::Dump;
use network::{Backend, Link};

use super::inventory::{NetworkEntry, NicEntry};
use crate::BuildError;
use crate::description::{Filter, Network, NetworkKind};

/// All wires of a machine, by the ids of their back ends.
#[derive(Default)]
pub struct Links {
    by_id: HashMap<String, Arc<Link>>,
    /// NICs, and the wires they are on.
    nics: Vec<(NicEntry, Arc<Link>)>,
}

impl Links {
    /// Opens all back ends and filters.
    pub fn open(networks: &[Network], filters: &[Filter]) -> Result<Links, BuildError> {
        let mut links = Links::default();
        for network in networks {
            let link = Link::new(&network.id);
            link.connect_backend(open(network)?);
            links.by_id.insert(network.id.clone(), link);
        }
        for filter in filters {
            let fail = |reason: String| BuildError::Device {
                name: filter.id.clone(),
                reason,
            };
            let link = links
                .by_id
                .get(&filter.netdev)
                .ok_or_else(|| fail(format!("Device '{}' not found", filter.netdev)))?;
            let dump = Dump::create(&filter.file, filter.which, filter.limit);
            link.add_filter(Arc::new(dump.map_err(|e| fail(e.to_string()))?));
        }
        Ok(links)
    }

    /// The wire of a back end, for a NIC with this name; without a back end one that leads nowhere.
    pub fn take(
        &mut self,
        netdev: Option<&str>,
        name: &str,
        model: &'static str,
        mac: [u8; 6],
    ) -> Result<Arc<Link>, String> {
        let link = match netdev {
            Some(id) => self
                .by_id
                .get(id)
                .cloned()
                .ok_or_else(|| format!("can't find value '{id}'"))?,
            None => Link::new(name),
        };
        let nic = NicEntry {
            name: name.into(),
            model,
            mac,
        };
        self.nics.push((nic, link.clone()));
        Ok(link)
    }

    /// All wires: first those of NICs, in their order.
    pub fn entries(&self) -> Vec<NetworkEntry> {
        let entry = |nic: Option<&NicEntry>, link: &Arc<Link>| NetworkEntry {
            nic: nic.cloned(),
            backend: link.backend().map(|b| (link.id().to_string(), b.info())),
            up: link.is_up(),
        };
        let nics = self.nics.iter().map(|(nic, link)| entry(Some(nic), link));
        let taken = |link: &Arc<Link>| self.nics.iter().any(|(_, l)| Arc::ptr_eq(l, link));
        let mut alone: Vec<_> = self.by_id.values().filter(|link| !taken(link)).collect();
        alone.sort_by_key(|link| link.id());
        nics.chain(alone.into_iter().map(|link| entry(None, link)))
            .collect()
    }

    /// Cuts or mends a wire, by its back end's id or its NIC's name: whether there is such a thing (QMP `set_link`).
    pub fn set_link(&self, name: &str, up: bool) -> bool {
        let nic = self.nics.iter().find(|(n, _)| n.name == name);
        let nic = nic.map(|(_, link)| link);
        match self.by_id.get(name).or(nic) {
            Some(link) => {
                link.set_up(up);
                true
            }
            None => false,
        }
    }

    /// The machine ends.
    pub fn stop(&self) {
        for link in self.by_id.values() {
            link.stop();
        }
    }
}

fn open(network: &Network) -> Result<Arc<dyn Backend>, BuildError> {
    let fail = |error: network::OpenError| BuildError::Network {
        id: network.id.clone(),
        reason: error.to_string(),
    };
    Ok(match &network.kind {
        NetworkKind::User(config) => {
            Arc::new(network::user::User::new((**config).clone()).map_err(fail)?)
        }
        NetworkKind::Stream(config) => {
            Arc::new(network::stream::Stream::open(config.clone()).map_err(fail)?)
        }
        #[cfg(target_os = "linux")]
        NetworkKind::Tap(config) => Arc::new(network::tap::Tap::open(config).map_err(fail)?),
        NetworkKind::Vmnet(config) => Arc::new(network::vmnet::Vmnet::open(config).map_err(fail)?),
    })
}
