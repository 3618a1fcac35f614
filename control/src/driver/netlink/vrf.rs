//! Virtual routing and forwarding: an interface that belongs to a VRF device has that one's routing
//! table.

use futures::TryStreamExt;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{InfoData, InfoVrf, LinkAttribute, LinkInfo, LinkMessage};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Puts an interface into the VRF `name`; the number of its routing table.
    ///
    /// # Errors
    /// In the kernel's words: there is no such VRF.
    pub async fn join_vrf(&self, index: u32, name: &str) -> Result<u32, NetlinkError> {
        let failed = |cause: &dyn std::fmt::Display| {
            let hint = format!("make it with: ip link add {name} type vrf table 100");
            NetlinkError::new(format!("put the interface into the VRF {name}"), cause).hint(&hint)
        };
        let mut links = self.handle.link().get().match_name(name).execute();
        let found = links.try_next().await.map_err(|error| failed(&error))?;
        let found = found.ok_or_else(|| failed(&"there is none of this name"))?;
        let table = table_of(&found).ok_or_else(|| failed(&"that interface is no VRF"))?;
        let change = LinkUnspec::new_with_index(index).controller(found.header.index);
        let request = self.handle.link().set(change.build());
        request.execute().await.map_err(|error| failed(&error))?;
        Ok(table)
    }
}

fn table_of(link: &LinkMessage) -> Option<u32> {
    let infos = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vrf(data)) => data.iter().find_map(|data| match data {
            InfoVrf::TableId(table) => Some(*table),
            _ => None,
        }),
        _ => None,
    })
}
